"""``arcface-cakd data``, as typed."""

import errno
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from helpers.record_sets import jpeg, write_records

from arcface_cakd.cli import main
from arcface_cakd.data import write_bin
from arcface_cakd.recordio import framing

MAGIC_IMAGE = jpeg(1) + bytes(-len(jpeg(1)) % 4) + framing.MAGIC


@pytest.fixture
def faces(insightface_set):
    folder, _ = insightface_set
    (folder / "property").write_text("4,112,112\n")
    same = [n % 2 == 0 for n in range(10)]
    write_bin(folder / "lfw.bin", [jpeg(1), jpeg(2, (96, 96))] * 10, same)
    return folder


def write_pairs(path, *bad):
    """Ten pairs of both kinds, the last images of which are given."""
    images = [jpeg(seed) for seed in range(20 - len(bad))]
    write_bin(path, [*images, *bad], [n % 2 == 0 for n in range(10)])


def data(*arguments) -> int:
    return main(["data", *map(str, arguments)])


def test_inspect_counts(faces, capsys, tmp_path):
    assert data("inspect", faces, "--json", tmp_path / "j" / "a.json") == 0
    records, pairs = json.loads((tmp_path / "j" / "a.json").read_text())
    assert records == {
        "path": str(faces / "train.rec"),
        "kind": "records",
        "record_0": "insightface",
        "images": 26,
        "identities": 4,
        "labels": "0 to 3",
        "declared_identities": 4,
        "multi_part": 0,
        "other_records": 5,
        "landmarks": None,
        "sizes": {"112 x 112": 26},
    }
    assert (pairs["kind"], pairs["images"], pairs["pairs"], pairs["same"]) == (
        "verification",
        20,
        10,
        5,
    )
    assert pairs["sizes"] == {"112 x 112": 10, "96 x 96": 10}
    printed = capsys.readouterr().out
    assert "identities: 4" in printed and "sizes: 26 of 112 x 112" in printed


def test_landmarks_of_the_images_are_told_and_verified(faces, capsys, tmp_path):
    points = np.full((26, 5, 2), 50, dtype=np.float32)
    points[[3, 20], 1] = np.nan
    np.save(faces / "train_landmarks.npy", points)
    assert data("inspect", faces / "train.rec") == 0
    assert "landmarks: train_landmarks.npy" in capsys.readouterr().out
    assert data("verify", faces, "--json", tmp_path / "damage.json") == 1
    printed = capsys.readouterr().out
    assert "row 3 of" in printed and "row 20 of" in printed and "2 damaged" in printed
    damaged = json.loads((tmp_path / "damage.json").read_text())["damaged"]
    assert [d["path"] for d in damaged] == [str(faces / "train_landmarks.npy")] * 2
    np.save(faces / "train_landmarks.npy", points[:25])
    assert data("verify", faces) == 1
    assert "shape (25, 5, 2) instead of (26, 5, 2)" in capsys.readouterr().out
    np.save(faces / "train_landmarks.npy", np.nan_to_num(points, nan=50.0))
    assert data("verify", faces) == 0


def test_inspect_tells_im2rec_and_records_of_many_parts(tmp_path, capsys):
    write_records(tmp_path, {0: (0.0, jpeg(0)), 1: (1.0, MAGIC_IMAGE), 2: (1.0, jpeg(2))})
    assert data("inspect", tmp_path / "train.rec") == 0
    printed = capsys.readouterr().out
    for line in ("record 0: im2rec", "images: 3", "identities: 2", "multi part: 1"):
        assert f"  {line}\n" in printed


def test_inspect_a_folder(tmp_path, capsys):
    for i in range(3):
        (tmp_path / f"person {i}").mkdir()
        (tmp_path / f"person {i}" / "1.jpg").write_bytes(jpeg(i))
    assert data("inspect", tmp_path) == 0
    assert "identities: 3" in capsys.readouterr().out
    (tmp_path / "person 1" / "1.jpg").write_bytes(jpeg(1)[:500])
    assert data("verify", tmp_path) == 1
    printed = capsys.readouterr().out
    assert "1.jpg: the image does not decode" in printed and "3 items read, 1 damaged" in printed


def test_images_without_labels(tmp_path, capsys):
    """At any depth, in one folder or several, beside a verification set."""
    folder = tmp_path / "set"
    for place in ("0.jpg", "a/1.jpg", "a/deep/2.jpg"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(jpeg(3))
    (folder / "notes.md").write_text("of nobody")
    write_pairs(folder / "lfw.bin")
    assert data("inspect", folder) == 1  # a wrapped folder, where people are told apart
    said = tmp_path / "a.json"
    assert data("inspect", folder, "--no-labels", "--json", said) == 0
    tree, pairs = json.loads(said.read_text())
    assert tree == {
        "path": str(folder),
        "kind": "images without labels",
        "images": 3,
        "folders": 3,
        "left_out": "1 (notes.md)",
        "sizes": {"112 x 112": 3},
    }
    assert pairs["kind"] == "verification"
    assert data("inspect", folder, "--no-labels", "--contact-sheet", tmp_path / "sheet.png") == 0
    assert (tmp_path / "sheet.png").stat().st_size
    capsys.readouterr()
    assert data("verify", folder, "--no-labels") == 0
    assert "23 items read, 0 damaged" in capsys.readouterr().out
    (folder / "a" / "deep" / "2.jpg").write_bytes(jpeg(3)[:200])
    assert data("verify", folder, "--no-labels") == 1
    assert f"{folder}/a/deep/2.jpg: " in capsys.readouterr().out


def test_verify_an_intact_set(faces, capsys):
    assert data("verify", faces) == 0
    assert f"{faces}: 51 items read, 0 damaged" in capsys.readouterr().out


def test_verify_names_every_damaged_record(tmp_path, capsys):
    bad = bytearray(jpeg(3))
    bad[900:903] = b"\xff\xd9\xff"  # ends early: some decoders make the rest up
    records = {key: (float(key % 3), jpeg(key)) for key in range(8)}
    records |= {2: (0.0, b"no image"), 3: (1.0, bytes(bad)), 5: (7.0, jpeg(5))}
    write_records(tmp_path, records)
    (tmp_path / "property").write_text("3,112,112")
    lines = dict(line.split("\t") for line in (tmp_path / "train.idx").open())
    stored = bytearray((tmp_path / "train.rec").read_bytes())
    stored[int(lines["6"])] ^= 1
    (tmp_path / "train.rec").write_bytes(stored)
    write_pairs(tmp_path / "lfw.bin", b"nothing")
    assert data("verify", tmp_path, "--json", tmp_path / "damage.json") == 1
    report = json.loads((tmp_path / "damage.json").read_text())
    rec, lfw = str(tmp_path / "train.rec"), str(tmp_path / "lfw.bin")
    assert report["items"] == 28
    assert [(d["path"], d["key"], d["byte"]) for d in report["damaged"]] == [
        *((rec, key, int(lines[str(key)])) for key in (2, 3, 5, 6)),
        (lfw, 19, None),
    ]
    assert "label 7 is not one of 0 to 2" in capsys.readouterr().out


def test_a_wrong_property_hides_no_other_damage(tmp_path, capsys):
    write_records(tmp_path, {0: (0.0, jpeg(0)), 1: (1.0, b"no image")})
    (tmp_path / "property").write_text("2,96,96")
    assert data("verify", tmp_path, "--json", tmp_path / "damage.json") == 1
    damaged = json.loads((tmp_path / "damage.json").read_text())["damaged"]
    assert [(d["path"], d["key"]) for d in damaged] == [
        (str(tmp_path / "property"), None),
        (str(tmp_path / "train.rec"), 1),
    ]
    assert damaged[0]["problem"].startswith("must say 'identities,112,112'")


def test_verify_goes_on_behind_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    for key, name in enumerate("abc"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        (tmp_path / "faces" / name / "1.jpg").write_bytes(jpeg(key))
    read_bytes = Path.read_bytes

    def refuse(path):
        if path.parent.name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert data("verify", tmp_path / "faces", "--json", tmp_path / "damage.json") == 1
    report = json.loads((tmp_path / "damage.json").read_text())
    assert report["items"] == 3
    assert [d["problem"] for d in report["damaged"]] == ["cannot be read: Permission denied"]


def test_a_mistake_is_one_line_and_exit_code_1(faces, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("x")
    for arguments, text in (
        (("inspect", tmp_path / "nowhere"), "nowhere: no such file or folder"),
        (("verify", tmp_path / "notes.txt"), "notes.txt: neither a .rec nor a .bin"),
        (("pack", tmp_path / "nowhere", tmp_path / "out"), "nowhere: no such folder"),
    ):
        assert data(*arguments) == 1
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1 and text in printed.err
        assert printed.out == ""
    assert not (tmp_path / "out").exists()


def test_pack(tmp_path, capsys):
    (tmp_path / "crops" / "someone").mkdir(parents=True)
    (tmp_path / "crops" / "someone" / "1.jpg").write_bytes(jpeg(0))
    (tmp_path / "crops" / "another").mkdir()
    (tmp_path / "crops" / "another" / "1.jpg").write_bytes(jpeg(1))
    assert data("pack", tmp_path / "crops", tmp_path / "out") == 0
    assert "2 images of 2 identities" in capsys.readouterr().out
    assert data("verify", tmp_path / "out") == 0


def test_synthesize_passes_on_what_was_asked(monkeypatch, tmp_path):
    asked = {}

    def synthesize(out, identities, images_per_identity, seed, **options):
        asked.update(options, out=out, identities=identities, seed=seed, m=images_per_identity)

    module = types.SimpleNamespace(synthesize=synthesize)
    monkeypatch.setitem(sys.modules, "arcface_cakd.synthesis", module)
    arguments = ["--identities", "3", "--images-per-identity", "4", "--seed", "5"]
    assert data("synthesize", tmp_path, *arguments, "--pairs", "6", "--difficulty", "0.5") == 0
    assert asked == {
        "out": str(tmp_path),
        "identities": 3,
        "m": 4,
        "seed": 5,
        "difficulty": 0.5,
        "pairs": 6,
        "contact_sheet": None,
    }
    with pytest.raises(SystemExit) as stop:
        data("synthesize", tmp_path, *arguments, "--pairs", "0")
    assert stop.value.code == 2


def test_a_made_set_is_replaced_by_force(tmp_path, capsys):
    size = ["--identities", "2", "--images-per-identity", "1", "--pairs", "20", "--seed"]
    out, other = tmp_path / "out", tmp_path / "other"
    assert data("synthesize", out, *size, "1") == 0
    (out / "labels.tsv").write_text("of the former set")
    (out / "mine.bin").write_bytes(b"stays")
    assert data("synthesize", out, *size, "2") == 1
    assert "replace it with --force" in capsys.readouterr().err
    assert data("synthesize", out, *size, "2", "--force") == 0
    assert data("synthesize", other, *size, "2") == 0
    made = {path.name: path.read_bytes() for path in other.iterdir()}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        **made,
        "mine.bin": b"stays",
    }
    (other / "train.rec").unlink()
    (other / "train.idx").unlink()  # its verification sets may be anybody's
    assert data("synthesize", other, *size, "3", "--force") == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["synthesize", "pack", "renumber", "index", "inspect", "verify"])
def test_help_has_an_example(action, capsys):
    with pytest.raises(SystemExit) as stop:
        data(action, "--help")
    assert stop.value.code == 0
    assert f"example: arcface-cakd data {action}" in " ".join(capsys.readouterr().out.split())


def test_verify_goes_through_every_file_of_a_set(faces, capsys, tmp_path):
    (faces / "agedb_30.bin").write_bytes(b"no pickle")
    write_pairs(faces / "cfp_fp.bin", b"nothing")
    (faces / "train.idx").unlink()
    assert data("verify", faces, "--json", tmp_path / "damage.json") == 1
    damaged = json.loads((tmp_path / "damage.json").read_text())["damaged"]
    assert [(Path(d["path"]).name, d["key"]) for d in damaged] == [
        ("train.idx", None),
        ("agedb_30.bin", None),
        ("cfp_fp.bin", 19),
    ]
    (faces / "train.rec").unlink()
    assert data("verify", faces, "--json", tmp_path / "damage.json") == 1
    assert "agedb_30.bin: not a verification set" in capsys.readouterr().out


def test_folders_beside_verification_sets_are_read_too(tmp_path, capsys):
    """As training does, where there is no train.rec."""
    for i in range(3):
        (tmp_path / f"person {i}").mkdir()
        (tmp_path / f"person {i}" / "1.jpg").write_bytes(jpeg(i)[: 900 if i == 1 else None])
    write_pairs(tmp_path / "lfw.bin")
    assert data("inspect", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "identities: 3" in printed and "pairs: 10" in printed
    assert data("verify", tmp_path) == 1
    assert "23 items read, 1 damaged" in capsys.readouterr().out


def test_a_wrong_label_hides_no_damaged_image(tmp_path, capsys):
    write_records(tmp_path, {0: (0.0, jpeg(0)), 1: (1.0, jpeg(1)), 2: (7.5, jpeg(2)[:900])})
    assert data("verify", tmp_path) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "key 2" in line]
    assert "label 7.5 is not one of" in line and "the image does not decode" in line
