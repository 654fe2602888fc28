"""torchrun's report ends with the line that says what went wrong."""

import json

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from arcface_cakd import cli
from arcface_cakd.arcface_torch.user_errors import exiting_on_user_error
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.launcher import tell_launcher

LINE = "rec nowhere: no such folder; give the data set's"


def report(error_file) -> str:
    """What torchrun prints of one process that exited with 1."""
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(error_file))
    return ChildFailedError("train.py", {0: failure}).format_msg()


@pytest.fixture
def error_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    return tmp_path / "error.json"


def last_line(text: str) -> str:
    """But for the ruler below it."""
    return [line for line in text.splitlines() if set(line) - set("=- ")][-1]


def test_the_report_ends_with_it(error_file):
    assert LINE not in report(error_file)
    tell_launcher(LINE)
    assert last_line(report(error_file)).endswith(f": {LINE}")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_every_rank_of_our_loop_tells_it(error_file, monkeypatch, capsys, caplog, rank):
    caplog.set_level("INFO", logger="arcface_cakd")  # which the command changes, until the end
    monkeypatch.setenv("RANK", rank)
    assert cli.main(["train", "no_such_config"]) == 1
    said = last_line(report(error_file))
    assert "arcface-cakd train: error: " in said and "no_such_config" in said
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (rank == "0") and all(said.endswith(line) for line in lines)


def test_so_does_a_run_of_the_host(error_file, capsys):
    with pytest.raises(SystemExit), exiting_on_user_error():
        raise ArcfaceCakdError(LINE)
    assert last_line(report(error_file)).endswith(f"arcface-cakd: error: {LINE}")


@pytest.mark.parametrize(("of_one_rank", "said"), [(False, 0), (True, 1)])
def test_what_one_rank_alone_meets_it_says(error_file, monkeypatch, capsys, of_one_rank, said):
    monkeypatch.setattr("arcface_cakd.arcface_torch.user_errors.is_main", lambda: False)
    with pytest.raises(SystemExit), exiting_on_user_error(of_one_rank):
        raise ArcfaceCakdError(LINE)
    assert capsys.readouterr().err.splitlines() == [f"arcface-cakd: error: {LINE}"] * said


def test_without_torchrun_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    tell_launcher(LINE)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_hides_no_mistake(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "gone" / "error.json"))
    tell_launcher(LINE)


def test_a_line_in_any_script_is_told(error_file):
    tell_launcher("顔: no such folder")
    assert json.loads(error_file.read_text())["message"]["message"] == "顔: no such folder"
