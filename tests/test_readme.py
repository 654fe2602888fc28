"""What the README, and the documents that took over parts of it, show is what the package takes."""

import json
import os
import statistics
import subprocess
import sys

from helpers.documents import ROOT, blocks, read

from arcface_cakd import BACKBONES, LOSSES
from arcface_cakd.config import load_config

README = read("README.md")
CONFIG = read("docs/config.md")
PATCHES = read("patches/README.md")


def test_the_configs_load(tmp_path):
    entry, whole = [block for language, block in blocks(README) if language == "python"]
    for source in (whole, whole + entry):
        (tmp_path / "example.py").write_text(source)
        loaded = load_config(tmp_path / "example.py")
        assert loaded.network == "r10_mini" and (loaded.cakd is None) == (source == whole)
    assert loaded.cakd.teacher["network"] == "swin_s"
    assert loaded.cakd.urfm is not None and loaded.cakd.prompts is None


def test_the_loss_of_its_own_works_as_an_installed_package(tmp_path):
    (source,) = [block for _, block in blocks(CONFIG) if "class NormLoss" in block]
    code = [line for line in source.splitlines() if line]
    assert len(code) <= 20, len(code)
    (tmp_path / "norm_distillation.py").write_text(source)
    info = tmp_path / "norm_distillation-1.0.dist-info"  # what pip leaves of a package
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: norm-distillation\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[arcface_cakd.losses]\nnorm = norm_distillation\n")
    script = """
import torch
from arcface_cakd import CakdConfig, Distiller
from arcface_cakd.backbones import get_model
entry = dict(teacher=dict(network="swin_mini", weights="random"), prompts=None, urfm=None)
config = CakdConfig.from_entry({**entry, "losses": [dict(name="norm", weight=2.0, scale=0.5)]})
student, teacher = (get_model(n, num_features=8) for n in ("r10_narrow", "swin_mini"))
distiller = Distiller(student, teacher, config).train()
images = torch.rand(4, 3, 112, 112)
z = distiller(images)
norms = z.norm(dim=1) - teacher(images).norm(dim=1)
torch.testing.assert_close(distiller.terms(None)["norm"], (norms * norms).mean())
"""
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    command = [sys.executable, "-m", "arcface_cakd", "list", "losses"]
    said = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert "Mean square difference of the embeddings' norms." in said.stdout


def test_every_network_and_loss_of_our_own_is_named():
    for registry in (BACKBONES, LOSSES):
        for name in registry.names():
            if registry.get(name).__module__.startswith("arcface_cakd."):  # not another test's
                assert f"`{name}`" in CONFIG, name


def test_the_table_of_host_breakages_is_what_the_script_found():
    found = json.loads((ROOT / "eval" / "results" / "host_breakages.json").read_text())
    for row in found["rows"]:
        assert bool(row["left"]) == bool(row["with_current_stack"]), row["what"]
        mended = f"not mended: {row['left']}" if row["left"] else "works"
        assert f"\n| {row['where']} | {row['what']} | {mended} |\n" in PATCHES
    assert found["host"][:8] in PATCHES and found["versions"]["torch"] in PATCHES


def test_the_demos_table_is_what_it_measured():
    found = json.loads((ROOT / "eval" / "results" / "demo.json").read_text())
    rows = {
        "teacher": "teacher (Swin, plain, 6 epochs)",
        "student": "student, plain, 1 epoch",
        "embedding": "student, embedding only, 1 epoch",
        "cakd": "student, embedding and URFM, 1 epoch",
    }
    sets = ("lfw", "cfp_fp", "agedb_30")
    for name, run in found["runs"].items():
        results = [run["results"][each] for each in sets]
        cells = [f"{100 * result['accuracy']:.1f}" for result in results]
        cells += [f"{100 * result['tar']['0.1']:.1f}" for result in results]
        cells += [f"{run['parameters']:,}", f"{1000 / run['images_per_second']:.1f}"]
        assert f"\n| {rows.pop(name)} | {' | '.join(cells)} |\n" in README
    assert not rows
    histogram = " | ".join(f"{100 * found['histogram_accuracy'][each]:.1f}" for each in sets)
    assert f"\n| colour histogram alone | {histogram} | - |" in README


def test_the_table_of_real_faces_is_what_the_cells_found():
    runs = ROOT / "eval" / "study" / "runs" / "real"
    rows = {
        "colour_histogram": "colour histogram alone",
        "plain_8_epochs": "student, plain",
        "embedding_128_8_epochs": "embedding only, weight 128",
        "embedding_64_reviewkd_40_8_epochs": "embedding 64 and ReviewKD, weight 40",
        "embedding_64_reviewkd_120_8_epochs": "the same, weight 120",
        "embedding_64_fitnet_140_8_epochs": "embedding 64 and FitNet, weight 140",
        "embedding_64_cakd_liu_0.57_8_epochs": "embedding 64 and CAKD-Liu, weight 0.57",
        "embedding_64_urfm_100_1_falling_8_epochs": "embedding 64 and URFM (the default)",
        "teacher": "teacher",
    }
    shown, cfp = README.replace("**", ""), ("cfp_ff", "cfp_fp")
    for method, label in rows.items():
        seeds = (0,) if method in ("teacher", "colour_histogram") else range(11, 16)
        cells = [json.loads((runs / method / f"{seed}.json").read_text()) for seed in seeds]
        judged = [cell["sets"] for cell in cells]

        def cell(name, scale, digits, sets=("test", "reserve"), spread=True, judged=judged):
            values = [
                scale * statistics.mean(found[each]["figures"][name] for each in sets)
                for found in judged
            ]
            text = f"{statistics.mean(values):.{digits}f}"
            if spread and len(values) > 1:
                text += f" ± {statistics.stdev(values):.{digits}f}"
            return text

        row = [cell("1-auc", 1, 4), *(cell("1-auc", 1, 4, sets=(each,)) for each in cfp)]
        row += [cell("accuracy", 100, 1), cell("tar@far=0.01", 100, 1, spread=False)]
        row += [cell("tar@far=0.01", 100, 1, sets=cfp[:1], spread=False)]
        assert f"\n| {label} | {' | '.join(row)} |" in shown, method


def test_ci_runs_the_test_command():
    """.ci/run takes the command out of the README, so it has to stand where it looks."""
    after = README.split("<!-- the test command -->\n```\n")[1]
    assert after.splitlines()[0].endswith("pytest")
