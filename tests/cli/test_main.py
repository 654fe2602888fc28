import os
import subprocess
import sys

import pytest
from helpers.record_sets import jpeg

import arcface_cakd
from arcface_cakd import cli
from arcface_cakd.errors import ArcfaceCakdError


def test_python_dash_m_is_the_command():
    shown = subprocess.run(
        [sys.executable, "-m", "arcface_cakd", "--version"], capture_output=True, text=True
    )
    assert shown.stdout.strip() == f"arcface-cakd {arcface_cakd.__version__}"


def test_wrong_usage_exits_2():
    with pytest.raises(SystemExit) as stopped:
        cli.main(["no-such-command"])
    assert stopped.value.code == 2


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert f"arcface-cakd {command}" in capsys.readouterr().out.split("example", 1)[1]


@pytest.mark.parametrize(("rank", "said"), [("0", 1), ("1", 0)])
def test_a_mistake_is_one_line_from_the_first_rank(monkeypatch, capsys, rank, said):
    from arcface_cakd.cli import train

    def fail(args):
        raise ArcfaceCakdError("the file x is not there: make it")

    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(train, "run", fail)
    assert cli.main(["train", "any"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["arcface-cakd train: error: the file x is not there: make it"] * said


@pytest.mark.parametrize("rank", ["", "worker-1"])
def test_a_rank_that_is_no_number_does_not_stop_the_command(monkeypatch, capsys, rank):
    monkeypatch.setenv("RANK", rank)
    assert cli.main(["train", "no_such_config"]) == 1
    assert "no_such_config" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "said"), [("0", 1), ("1", 0)])
def test_a_warning_is_one_line_from_the_first_rank(rank, said):
    """In a process of its own: pytest takes warnings for itself."""
    code = (
        "import warnings\n"
        "from arcface_cakd import cli\n"
        "from arcface_cakd.cli import train\n"
        "from arcface_cakd.errors import ArcfaceCakdWarning\n"
        "def warn(args):\n"
        "    warnings.warn('my_config.py: unknown key', ArcfaceCakdWarning, stacklevel=2)\n"
        "    warnings.warn('of torch', FutureWarning)\n"
        "train.run = warn\n"
        "cli.main(['train', 'any'])\n"
        "warnings.warn('afterwards', ArcfaceCakdWarning)\n"
    )
    environment = {**os.environ, "RANK": rank}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    lines = done.stderr.decode().splitlines()
    assert lines[:said] == ["arcface-cakd train: warning: my_config.py: unknown key"] * said
    assert lines[said].endswith("FutureWarning: of torch")
    assert lines[-1].endswith("ArcfaceCakdWarning: afterwards")
    assert len(lines) == said + 2


@pytest.mark.parametrize(
    "command",
    [
        ["--import", "ours", "data", "inspect", "no_such_folder"],
        ["data", "--import", "ours", "inspect", "no_such_folder"],
        ["data", "inspect", "no_such_folder", "--import", "ours"],
        ["bench", "latency", "no_such_model.onnx", "--import", "ours"],
        ["evaluate", "no_such_model.onnx", "--data", "x", "--import", "ours"],
    ],
)
def test_a_module_is_imported_wherever_it_is_asked_for(tmp_path, monkeypatch, capsys, command):
    (tmp_path / "ours.py").write_text("raise ValueError('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert cli.main(command) == 1
    assert "--import ours: ValueError: imported" in capsys.readouterr().err


def test_every_place_of_a_command_imports(tmp_path, monkeypatch, capsys):
    for name in ("first", "second", "third", "fourth"):
        (tmp_path / f"of_{name}.py").write_text(f"print('{name}')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    command = ["--import", "of_first", "data", "--import", "of_second", "inspect"]
    cli.main([*command, "--import", "of_third", "--import", "of_fourth", "no_such_folder"])
    assert capsys.readouterr().out.split() == ["first", "second", "third", "fourth"]


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    from arcface_cakd.cli import train

    def fail(args):
        with open("/dev/full", "w") as file:
            file.write("x" * 100_000)

    monkeypatch.setattr(train, "run", fail)
    assert cli.main(["train", "any"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, arcface_cakd; print('torch' in sys.modules, 'timm' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.split() == ["False", "False"]


def test_the_public_names_are_there():
    for name in arcface_cakd.__all__:
        assert getattr(arcface_cakd, name) is not None


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_the_terminal_cannot_show_is_escaped(tmp_path, encoding):
    """A folder's name in the output, one that is no text in any encoding among them."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"}
    for name, shown in (("顔", "\\u9854"), (os.fsdecode(b"b\xe9n"), "b\\udce9n")):
        folder = tmp_path / name
        for person in ("a", "b"):
            (folder / person).mkdir(parents=True)
            (folder / person / "1.jpg").write_bytes(jpeg(1))
        done = subprocess.run(
            [sys.executable, "-m", "arcface_cakd", "data", "inspect", folder],
            capture_output=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        printed = done.stdout.decode(encoding)
        assert (name if (encoding, name) == ("utf-8", "顔") else shown) in printed
