import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from arcface_cakd import cli
from arcface_cakd.backbones import (
    ModelDescription,
    TrainingSet,
    get_model,
    save_model,
    save_weights,
)
from arcface_cakd.cli.evaluate import digest_of_weights
from arcface_cakd.data import read_bin, write_bin
from arcface_cakd.evaluation import embed
from arcface_cakd.evaluation.protocols.bins import find_sets, judged
from arcface_cakd.export import export_model
from arcface_cakd.files import sha256_of


def faces(seed, pairs):
    """Pairs of coarse images; of one identity, two noisy copies."""
    random = np.random.default_rng(seed)
    issame = [bool(i % 2) for i in range(pairs)]
    encoded = []
    for same in issame:
        first = random.integers(0, 256, (7, 7, 3))
        second = first if same else random.integers(0, 256, (7, 7, 3))
        for coarse in (first, second):
            coarse = (coarse + random.normal(0, 90, coarse.shape)).clip(0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(coarse).resize((112, 112)).save(buffer, "PNG")
            encoded.append(buffer.getvalue())
    return encoded, issame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, its export, and sets: two of the default names, one of another."""
    folder = tmp_path_factory.mktemp("evaluate")
    for seed, name in enumerate(("lfw", "agedb_30", "vgg2_fp")):
        write_bin(folder / f"{name}.bin", *faces(seed, 24))
    torch.manual_seed(0)
    model = get_model("r10_narrow", num_features=16).eval()
    save_weights(model, folder / "model.pt")
    export_model(model, folder / "model.onnx")
    return folder


BATCH, DRAWS = 7, 100
NETWORK = ["--network", "r10_narrow", "--embedding-size", "16", "--device", "cpu"]


def expected(folder, name):
    model = get_model("r10_narrow", num_features=16)
    model.load_state_dict(torch.load(folder / "model.pt"))
    pairs = read_bin(folder / f"{name}.bin")
    return judged(embed(model, pairs.images, BATCH), pairs.issame, DRAWS)


def run(*arguments):
    few = ["--batch-size", str(BATCH), "--draws", str(DRAWS)]
    return cli.main(["evaluate", *map(str, arguments), *few])


def test_table_and_files_hold_the_figures(folder, tmp_path, capsys):
    files = ["--json", tmp_path / "r.json", "--roc", tmp_path / "r.png"]
    assert run(folder / "model.pt", *NETWORK, "--data", folder, *files) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["set", "lfw", "agedb_30"]
    figures = json.loads((tmp_path / "r.json").read_text())
    assert (figures["network"], figures["protocol"]) == ("r10_narrow", "bin")
    assert figures["model_sha256"] == sha256_of(folder / "model.pt")
    assert list(figures["sets"]) == ["lfw", "agedb_30"]
    for name, line in zip(figures["sets"], lines[1:], strict=False):
        result = expected(folder, name)
        found = figures["sets"][name]
        assert found.pop("data") == {"sha256": sha256_of(folder / f"{name}.bin")}
        assert found == json.loads(json.dumps(result.to_dict()))
        assert f"{100 * result.accuracy:.2f} +- " in line
        interval = result.accuracy_interval
        assert f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]" in line
        assert interval.low <= result.accuracy <= interval.high
    assert "pairs drawn again, for the set does not say who is on them" in lines[3]
    assert Image.open(tmp_path / "r.png").size == (840, 600)


def test_model_json_says_the_network(folder, tmp_path, capsys):
    described = ModelDescription("r10_narrow", 16, TrainingSet("faces", 36, 6))
    torch.manual_seed(0)
    save_model(get_model("r10_narrow", num_features=16), tmp_path / "model.pt", described)
    data = ["--data", folder / "vgg2_fp.bin", "--device", "cpu", "--json", tmp_path / "r.json"]
    assert run(tmp_path / "model.pt", *data) == 0
    figures = json.loads((tmp_path / "r.json").read_text())
    assert figures["network"] == "r10_narrow"
    result = expected(folder, "vgg2_fp")  # of the same weights
    del figures["sets"]["vgg2_fp"]["data"]
    assert figures["sets"]["vgg2_fp"] == json.loads(json.dumps(result.to_dict()))
    (tmp_path / "model.pt").write_bytes((folder / "model.pt").read_bytes()[:-1] + b"!")
    capsys.readouterr()
    assert run(tmp_path / "model.pt", *data) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.json is of" in line


def test_an_onnx_file_gives_the_models_figures(folder, tmp_path, capsys):
    data = ["--data", folder, "--targets", "vgg2_fp"]
    assert run(folder / "model.onnx", *data, "--json", tmp_path / "onnx.json") == 0
    found = json.loads((tmp_path / "onnx.json").read_text())["sets"]["vgg2_fp"]
    result = expected(folder, "vgg2_fp")
    assert (found["pairs"], found["accuracy"]) == (24, result.accuracy)
    assert found["auc"] == pytest.approx(result.auc, abs=0.01)


def test_bin_files_are_taken_as_they_are(folder, tmp_path, capsys):
    twin = tmp_path / "lfw.bin"
    twin.write_bytes((folder / "vgg2_fp.bin").read_bytes())
    data = ["--data", folder / "vgg2_fp.bin", folder / "lfw.bin", twin]
    assert run(folder / "model.pt", *NETWORK, *data, "--json", tmp_path / "r.json") == 0
    sets = json.loads((tmp_path / "r.json").read_text())["sets"]
    assert list(sets) == ["vgg2_fp", str(folder / "lfw.bin"), str(twin)]
    assert sets["vgg2_fp"] == sets[str(twin)] != sets[str(folder / "lfw.bin")]


def test_of_several_folders_each_is_judged_by_what_it_has(tmp_path):
    has = {"A": ("lfw", "cfp_fp"), "B": ("agedb_30", "lfw", "own"), "C": ("own",)}
    for folder, names in has.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.bin").touch()
    a, b, c = (tmp_path / name for name in has)

    def found(*paths, targets=None):
        return sorted(str(p.relative_to(tmp_path)) for p in find_sets(paths, targets).values())

    usual = ["A/cfp_fp.bin", "A/lfw.bin", "B/agedb_30.bin", "B/lfw.bin"]
    assert found(a, b) == usual and found(a, b, c) == [*usual, "C/own.bin"]
    assert found(a, b, c, targets=["own", "cfp_fp"]) == ["A/cfp_fp.bin", "B/own.bin", "C/own.bin"]


@pytest.mark.parametrize("suffix", ["", ".bin"])
def test_a_set_is_found_by_its_own_name(tmp_path, suffix, caplog):
    """In --data, in --targets, and as what there is where none of the usual ones is."""

    def names(*paths, targets=None):
        return list(find_sets(list(paths), targets))

    caplog.set_level("INFO")
    usual, own = tmp_path / "usual", tmp_path / "own"
    for path in (
        usual / "lfw.bin",
        usual / "agedb_30.bin",
        usual / "vgg2_fp.bin",
        own / "mine.bin",
    ):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert names(own / f"mine{suffix}") == names(own) == ["mine"]
    assert names(usual, own, targets=[f"mine{suffix}", f"lfw{suffix}"]) == ["lfw", "mine"]
    assert caplog.text == ""
    assert names(usual, own) == ["lfw", "agedb_30", "mine"]
    assert caplog.messages == [f"{usual}: also there: vgg2_fp; --targets names them"]
    (own / "mine.bin").rename(own / "vgg2_fp.bin")
    assert names(usual, own / f"vgg2_fp{suffix}") == ["lfw", "agedb_30", "vgg2_fp"]
    for name in ("xqlfw", "calfw", "cplfw"):
        (usual / f"{name}.bin").touch()
    assert names(usual) == ["lfw", "agedb_30", "calfw", "cplfw", "xqlfw"]


def with_last_layer(tmp_path, weight, bias):
    """A model that gives everybody one embedding."""
    model = get_model("r10_narrow", num_features=16)
    model.features.weight.data.fill_(weight)
    model.features.bias.data.fill_(bias)
    save_weights(model, tmp_path / "spoilt.pt")
    return tmp_path / "spoilt.pt"


def constant(tmp_path):
    return with_last_layer(tmp_path, 0.0, 0.5)


def diverged(tmp_path):
    return with_last_layer(tmp_path, 3e38, 0.5)  # finite, and what it gives is not


def few(tmp_path):
    write_bin(tmp_path / "few.bin", *faces(0, 4))
    return tmp_path / "few.bin"


def thesis(tmp_path):
    (tmp_path / "thesis.pdf").write_bytes(b"%PDF-1.5 three years of work")
    return tmp_path / "thesis.pdf"


def peopled(folder, tmp_path):
    """A set whose people are not those of its pairs."""
    (tmp_path / "own.bin").write_bytes((folder / "lfw.bin").read_bytes())
    (tmp_path / "own_people.tsv").write_text("a\tb\n")
    return tmp_path / "own.bin"


def test_few_pairs_say_that_they_have_no_interval(folder, tmp_path, capsys):
    encoded, _ = faces(0, 24)
    write_bin(tmp_path / "few.bin", encoded, [k < 1 for k in range(24)])
    files = ["--data", tmp_path / "few.bin", "--json", tmp_path / "r.json"]
    assert run(folder / "model.pt", *NETWORK, *files) == 0
    reason = "too few pairs: a draw held pairs of one kind only"
    assert f"few: no interval of accuracy: {reason}" in capsys.readouterr().out.splitlines()
    found = json.loads((tmp_path / "r.json").read_text())["sets"]["few"]
    assert found["absent"]["accuracy_interval"] == reason and found["accuracy_interval"] is None


def test_weights_of_what_is_no_file_have_no_digest(folder, tmp_path):
    assert digest_of_weights("hf:somebody/model") is None
    for name in ("m.xml", "m.bin"):
        (tmp_path / name).write_text(name)
    assert digest_of_weights(str(tmp_path / "m.xml")) == sha256_of(tmp_path / "m.bin")
    assert digest_of_weights(str(folder / "model.onnx")) == sha256_of(folder / "model.onnx")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (lambda f, t: ["no.pt", *NETWORK, "--data", f], "no.pt"),
        (lambda f, t: ["no.pt", "--data", f], "weights no.pt: no such file"),
        (lambda f, t: [f, "--data", f], ": a folder, and no such file in it as"),
        (lambda f, t: ["no.onnx", "--data", f], "no.onnx: no such file"),
        (lambda f, t: [f / "model.pt", "--data", f], "--network is needed"),
        (lambda f, t: [f / "model.pt", "--network", "r10_narow", "--data", f], "'r10_narrow'?"),
        (
            lambda f, t: [f / "model.pt", *NETWORK, "--embedding-size", "512", "--data", f],
            "another shape",
        ),
        (lambda f, t: [f / "model.pt", *NETWORK, "--data", t], "no .bin set is in"),
        (lambda f, t: [f / "model.pt", *NETWORK, "--data", t / "x"], "no such file or folder"),
        (
            lambda f, t: [f / "model.pt", *NETWORK, "--data", f, "--targets", "lwf"],
            "did you mean 'lfw'?",
        ),
        (lambda f, t: [f / "model.pt", *NETWORK, "--data", f / "model.pt"], "model.pt"),
        (lambda f, t: [f / "model.pt", *NETWORK, "--data", few(t)], "few.bin: 4 pairs"),
        (lambda f, t: [f / "model.pt", *NETWORK, "--data", f, "--pixels", "raw"], "is for .onnx"),
        (
            lambda f, t: [f / "model.pt", *NETWORK, "--data", f, "--device", "gpu"],
            "--device gpu cannot be used",
        ),
        (
            lambda f, t: [f / "model.pt", *NETWORK, "--data", f, "--device", "meta"],
            "--device meta cannot be used",
        ),
        (
            lambda f, t: [f / "model.onnx", "--data", f, "--network", "r10"],
            "--network is for model.pt files, and",
        ),
        (
            lambda f, t: ["m.xml", "--data", f, "--embedding-size", "16"],
            "--embedding-size is for model.pt files, and m.xml is none: drop it",
        ),
        (
            lambda f, t: ["m.xml", "--data", f, "--device", "cpu"],
            "--device is for model.pt and .onnx files, and m.xml is none: drop it",
        ),
        (
            lambda f, t: ["no.pt", "--data", f, "--protocol", "bins"],
            "unknown protocol 'bins'; did you mean 'bin'?",
        ),
        (lambda f, t: [constant(t), *NETWORK, "--data", f], "lfw.bin: all 48 embeddings are the"),
        (lambda f, t: [diverged(t), *NETWORK, "--data", f], "lfw.bin: 48 of 48 embeddings are not"),
        (lambda f, t: ["no.pt", *NETWORK, "--data", f, "--roc", t / "roc"], "must end in ."),
        (lambda f, t: ["no.pt", *NETWORK, "--data", f, "--roc", "roc.xyz"], "must end in ."),
        (lambda f, t: ["no.pt", *NETWORK, "--data", f, "--roc", t], ": a folder: name a file in"),
        (lambda f, t: ["no.pt", "--data", f, "--roc", thesis(t)], "thesis.pdf: is there, "),
        (lambda f, t: ["no.pt", "--data", f / "lfw", few(t)], "few.bin: 4 pairs do not make 10"),
        (lambda f, t: ["no.pt", "--data", f / "lfw", peopled(f, t)], "own_people.tsv must have a"),
        (
            lambda f, t: [f / "model.onnx", "--data", f, "--json", f / "lfw.bin" / "r.json"],
            "lfw.bin is no folder: name a file in one",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(folder, tmp_path, capsys, arguments, said):
    assert run(*arguments(folder, tmp_path)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("arcface-cakd evaluate: error: ")
    assert said in line


@pytest.mark.parametrize(
    "wrong", [["--device"], ["--embedding-size", "-1"], ["--embedding-size", "x"]]
)
def test_wrong_usage_exits_2(folder, wrong):
    with pytest.raises(SystemExit) as stopped:
        run(folder / "model.pt", *NETWORK, "--data", folder, *wrong)
    assert stopped.value.code == 2
