import json

import pytest
import torch

from arcface_cakd import demo
from arcface_cakd.backbones import get_model
from arcface_cakd.engine.run_record import write_run_record

MADE = {"identities": 6, "images_per_identity": 4, "seed": 3, "difficulty": 0.5, "pairs": 20}
SMALL = ("batch_size=8", "num_epoch=1", "checkpoint_every=2", "frequent=1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, demo.run_demo(out, made=MADE, overrides=SMALL)


def test_it_writes_all_that_it_promises(finished):
    out, _ = finished
    for name in (
        "student_cakd.onnx",
        "loss_curves.png",
        "roc_lfw.png",
        "roc_cfp_fp.png",
        "roc_agedb_30.png",
        "local_centers.png",
        "data/contact_sheet.png",
        "results.json",
        *(f"{run.name}/model.pt" for run in demo.RUNS),
    ):
        assert (out / name).stat().st_size > 0, name


def test_its_exit_code_is_the_floor_on_lfw(finished):
    out, code = finished
    runs = json.loads((out / "results.json").read_text())["runs"]
    weakest = min(run["results"]["lfw"]["accuracy"] for run in runs.values())
    assert code == (1 if weakest <= 0.60 else 0)


def test_the_figures_are_those_of_the_saved_models(finished):
    out, _ = finished
    figures = json.loads((out / "results.json").read_text())
    assert figures["data"] == MADE
    assert set(figures["histogram_accuracy"]) == {"lfw", "cfp_fp", "agedb_30"}
    student = get_model("r10_narrow", num_features=128)
    size = sum(p.numel() for p in student.parameters())
    assert {figures["runs"][n]["parameters"] for n in ("student", "embedding", "cakd")} == {size}
    assert figures["runs"]["cakd"]["results"]["lfw"]["pairs"] == 20


def test_called_again_it_goes_on_where_it_was(finished, capsys):
    out, code = finished
    before = {path: path.read_bytes() for path in out.glob("*/model.pt")}
    results = json.loads((out / "results.json").read_text())
    logs = {path: path.read_text() for path in out.glob("*/metrics.jsonl")}
    (out / "cakd" / "model.pt").unlink()
    (out / "cakd" / "checkpoint_gpu_0.pt").unlink()  # as if stopped before the last run
    assert demo.run_demo(out, made=MADE, overrides=SMALL) == code
    assert {path: path.read_bytes() for path in out.glob("*/model.pt")} == before
    again = json.loads((out / "results.json").read_text())
    for name, run in results["runs"].items():
        assert again["runs"][name]["results"] == run["results"], name
    for path, text in logs.items():
        if path.parent.name != "cakd":
            assert path.read_text() == text, path
    shown = capsys.readouterr().out
    assert all(run.label in shown for run in demo.RUNS) and "colour histogram" in shown


@pytest.mark.parametrize(
    "former", [[], ["cakd.prompts.num_tokens=4"], ["cakd.losses.0.weight=10"], None], ids=str
)
def test_a_run_that_distilled_in_another_way_starts_anew(tmp_path, former):
    """As one of a former version did; None: one of a version that kept no record."""
    run = demo.RUNS[-1]
    then = demo._config(run, tmp_path, former or [])
    then.folder.mkdir(parents=True)
    (then.folder / "checkpoint_gpu_0.pt").write_bytes(b"of that run")
    if former is not None:
        write_run_record(then, torch.device("cpu"), {})
    now = demo._config(run, tmp_path, [])
    assert now.resume == now.folder.exists() == (former == [])


def test_half_made_data_is_made_anew(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.rec").write_bytes(b"half")
    sets = demo._make_data(folder, MADE)
    assert {len(pairs.issame) for pairs in sets.values()} == {20}
    assert (folder / "train.rec").stat().st_size > 1000


def test_it_keeps_out_of_folders_that_are_not_its_own(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.rec").write_text("years of work")
    with pytest.raises(demo.DemoError, match="is not empty and no demo's"):
        demo.run_demo(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "mine.rec"]


@pytest.mark.parametrize("content", [b'{"my": "settings"}', b"[]", b"\xff", b""])
def test_a_file_of_the_name_of_its_own_is_not_its_own(tmp_path, content):
    (tmp_path / "demo.json").write_bytes(content)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.rec").write_text("years of work")
    with pytest.raises(demo.DemoError, match=r"its demo\.json is not of a demo"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "data" / "mine.rec").is_file()
    assert (tmp_path / "demo.json").read_bytes() == content


def test_other_faces_start_all_runs_anew(tmp_path):
    demo._claim(tmp_path, MADE)
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "checkpoint_gpu_0.pt").write_bytes(b"of these faces")
    demo._claim(tmp_path, MADE)
    assert (tmp_path / "teacher" / "checkpoint_gpu_0.pt").is_file()
    demo._claim(tmp_path, {**MADE, "seed": 4})
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]
