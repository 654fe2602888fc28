"""Record sets that are written: their layout, and a folder that is packed."""

import os

import numpy as np
import pytest
from helpers.record_sets import encoded, ends_early, jpeg, pixels
from PIL import Image

from arcface_cakd.cli import main
from arcface_cakd.data import DataError, get_dataloader, write_identity_records
from arcface_cakd.data.damage import verify
from arcface_cakd.data.images import decode_crop
from arcface_cakd.preparation.packing import Packed, pack_folder
from arcface_cakd.preparation.pairing import list_bin
from arcface_cakd.recordio import MXIndexedRecordIO, unpack


def test_the_layout_is_insightfaces(tmp_path):
    identities = [[jpeg(0), jpeg(1)], [jpeg(2)], [jpeg(3), jpeg(4), jpeg(5)]]
    write_identity_records(tmp_path / "out", (iter(images) for images in identities))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "property",
        "train.idx",
        "train.rec",
        "train.sha256",
    ]
    assert (tmp_path / "out" / "property").read_text() == "3,112,112\n"
    reader = MXIndexedRecordIO(tmp_path / "out/train.idx", tmp_path / "out/train.rec", "r")
    records = {key: unpack(reader.read_idx(key)) for key in reader.keys}
    assert reader.keys == [*range(1, 10), 0]
    header, image = records[0]
    assert (header.flag, header.label.tolist(), image) == (2, [7, 10], b"")
    images = [image for images in identities for image in images]
    for key, (label, image) in enumerate(zip((0, 0, 1, 2, 2, 2), images, strict=True), start=1):
        assert records[key] == ((0, float(label), key, 0), image)
    ranges = [records[key][0].label.tolist() for key in (7, 8, 9)]
    assert ranges == [[1, 3], [3, 4], [4, 7]]


def test_nothing_is_written_when_it_goes_wrong(tmp_path):
    write_identity_records(tmp_path, [[jpeg(0)]])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for identities, text in (([[jpeg(1)], []], "identity 1 has no images"), ([], "no identities")):
        with pytest.raises(DataError, match=text):
            write_identity_records(tmp_path, identities)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_is_packed(tmp_path):
    folder, out = tmp_path / "crops", tmp_path / "out"
    for name in ("zoe", "adam"):
        (folder / name).mkdir(parents=True)
    (folder / "zoe" / "2.jpg").write_bytes(jpeg(0))
    (folder / "zoe" / "1.jpeg").write_bytes(jpeg(1, quality=30))
    smooth = Image.fromarray(pixels(jpeg(2)))
    (folder / "adam" / "x.png").write_bytes(encoded(smooth, "PNG"))
    assert pack_folder(folder, out) == Packed(3, 2, [])
    reader = MXIndexedRecordIO(out / "train.idx", out / "train.rec", "r")
    records = [unpack(reader.read_idx(key)) for key in (1, 2, 3)]
    assert [header.label for header, _ in records] == [0, 1, 1]
    assert [image for _, image in records[1:]] == [jpeg(1, quality=30), jpeg(0)]
    made = records[0][1]
    assert made[:2] == b"\xff\xd8"
    assert np.abs(pixels(made).astype(int) - np.asarray(smooth)).mean() < 2
    loader = get_dataloader(out, 3, seed=0, num_workers=0)
    ((_, labels),) = list(loader)
    assert (sorted(labels.tolist()), loader.num_classes) == ([0, 1, 1], 2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_packed_is_upright_without_exif(tmp_path, orientation):
    face = Image.fromarray(pixels(jpeg(orientation)))
    turns = [None, 0, 3, 1, 5, 2, 6, 4]  # Pillow's transpositions that undo the upright one
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = face if orientation == 1 else face.transpose(turns[orientation - 1])
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "1.jpg").write_bytes(encoded(stored, exif=exif, quality=95))
    (tmp_path / "in" / "b").mkdir()
    grey = np.asarray(face.convert("L")).astype(np.uint16) * 256 + 200
    (tmp_path / "in" / "b" / "1.png").write_bytes(encoded(Image.fromarray(grey), "PNG"))
    pack_folder(tmp_path / "in", tmp_path / "out")
    reader = MXIndexedRecordIO(tmp_path / "out/train.idx", tmp_path / "out/train.rec", "r")
    upright, deep = (pixels(unpack(reader.read_idx(key))[1]).astype(int) for key in (1, 2))
    assert np.abs(upright - np.asarray(face)).mean() < 3
    assert np.abs(deep - np.asarray(face.convert("L"))[..., None]).mean() < 2


def test_an_image_of_another_size_is_named(tmp_path):
    folder = tmp_path / "crops" / "zoe"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(jpeg(0, (120, 112)))
    (tmp_path / "crops" / "adam").mkdir()
    (tmp_path / "crops" / "adam" / "1.jpg").write_bytes(jpeg(1))
    with pytest.raises(DataError, match=r"1\.jpg: the image is 120 x 112, not 112 x 112: align"):
        pack_folder(tmp_path / "crops", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_written_is_no_person_of_the_folder_that_is_read(tmp_path, capsys):
    """Nor would it make a folder without an image, which the next command refused."""
    crops = tmp_path / "crops"
    for person in range(20):
        (crops / f"{person}").mkdir(parents=True)
        for image in range(2):
            (crops / f"{person}" / f"{image}.jpg").write_bytes(jpeg(2 * person + image))
    (tmp_path / "link").symlink_to(crops)
    before = sorted(tmp_path.rglob("*"))
    for arguments in (
        ["pack", crops, crops / "packed"],
        ["pack", crops, tmp_path / "link" / "packed"],
        ["templates", crops, crops / "own"],
        ["pairs", crops, crops / "sets" / "own.bin", "--pairs", "20"],
    ):
        assert main(["data", *map(str, arguments)]) == 1
        assert "whose folders are taken for people: name a place else" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["data", "pairs", str(crops), str(crops / "own.bin"), "--pairs", "20"]) == 0


class TestBadFiles:
    @pytest.fixture
    def crops(self, tmp_path):
        for name, data in {
            "a/1.jpg": jpeg(1),
            "a/2.jpg": jpeg(2)[:700],
            "b/1.jpg": jpeg(3),
            "b/2.jpg": jpeg(4, (96, 112)),
            "b/3.png": b"no image",
            "c/1.jpg": b"",
            "d/1.jpg": jpeg(5),
        }.items():
            path = tmp_path / "crops" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "crops"

    BAD = ("a/2.jpg", "b/2.jpg", "b/3.png", "c/1.jpg")

    def test_all_are_named_in_one_go(self, crops, tmp_path, caplog):
        with pytest.raises(DataError, match=r"4 of 7 files cannot be packed") as error:
            pack_folder(crops, tmp_path / "out")
        assert str(error.value).startswith(f"{crops / self.BAD[0]}: the image does not decode")
        assert [message.split(":")[0] for message in caplog.messages] == [
            str(crops / name) for name in self.BAD
        ]
        assert not (tmp_path / "out").exists()

    def test_a_jpeg_that_decoders_make_up_is_bad_too(self, tmp_path, caplog):
        """For ``data verify`` would call the set damaged."""
        crops = two_people(tmp_path / "crops")
        for name in ("ann/2.jpg", "ben/2.jpg"):
            (crops / name).parent.mkdir(exist_ok=True)
            (crops / name).write_bytes(jpeg(4))
        bad = crops / "ben" / "3.jpg"
        bad.write_bytes(ends_early(jpeg(3)))
        assert decode_crop(bad.read_bytes()).shape == (112, 112, 3)
        listed = tmp_path / "pairs.txt"
        listed.write_text("ben/1.jpg ben/3.jpg 1\n" + "ben/1.jpg ben/2.jpg 1\n" * 10)
        for make in (
            lambda: pack_folder(crops, tmp_path / "out"),
            lambda: list_bin(crops, tmp_path / "own.bin", listed),
        ):
            caplog.clear()
            with pytest.raises(DataError, match="named above"):
                make()
            (message,) = caplog.messages
            assert f"{bad}: the image does not decode: " in message
        pack_folder(crops, tmp_path / "out", skip_bad=True)
        assert verify(tmp_path / "out")[1] == []

    def test_they_are_left_out_where_that_is_asked_for(self, crops, tmp_path):
        packed = pack_folder(crops, tmp_path / "out", skip_bad=True)
        assert (packed.images, packed.identities) == (3, 3)
        assert [line.split(":")[0] for line in packed.skipped] == [
            str(crops / name) for name in self.BAD
        ]
        out = tmp_path / "out"
        reader = MXIndexedRecordIO(out / "train.idx", out / "train.rec", "r")
        records = [unpack(reader.read_idx(key)) for key in (1, 2, 3)]
        assert [(header.label, image) for header, image in records] == [
            (0, jpeg(1)),
            (1, jpeg(3)),
            (2, jpeg(5)),
        ]
        # "c" has no label, as none of its images is left.
        assert (out / "labels.tsv").read_text() == "label\tfolder\n0\ta\n1\tb\n2\td\n"

    def test_one_identity_that_is_left_is_refused(self, crops, tmp_path):
        for name in ("b/1.jpg", "d/1.jpg"):
            (crops / name).write_bytes(b"no image")
        with pytest.raises(DataError, match="fewer than two identities have an image"):
            pack_folder(crops, tmp_path / "out", skip_bad=True)
        assert not (tmp_path / "out").exists()

    def test_the_command(self, crops, tmp_path, capsys):
        arguments = ["data", "pack", str(crops), str(tmp_path / "out")]
        assert main(arguments) == 1
        assert main([*arguments, "--skip-bad"]) == 0
        printed = capsys.readouterr()
        assert "3 images of 3 identities; 4 files left out" in printed.out


def two_people(folder):
    for name in ("anna", "ben"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.jpg").write_bytes(jpeg(len(name)))
    return folder


@pytest.mark.parametrize("there", ["train.rec", "train.idx"])
def test_a_standing_data_set_is_replaced_by_force_alone(tmp_path, there, caplog):
    crops, out = two_people(tmp_path / "crops"), tmp_path / "out"
    out.mkdir()
    (out / there).write_bytes(b"weeks of work")
    (out / "train_landmarks.npy").write_bytes(b"of those")
    for arguments in (
        ["pack", str(crops), str(out)],
        ["synthesize", str(out), "--identities", "2", "--images-per-identity", "1", "--seed", "1"],
    ):
        assert main(["data", *arguments]) == 1
    with pytest.raises(DataError, match=rf"{there}: a data set is there: .* with --force"):
        pack_folder(crops, out)
    assert (out / there).read_bytes() == b"weeks of work"
    assert pack_folder(crops, out, force=True).images == 2
    assert caplog.messages == [
        f"{out / 'train_landmarks.npy'}: is of the former data set: remove it"
    ]


def test_labels_are_told_by_folder(tmp_path):
    crops = two_people(tmp_path / "crops")
    (crops / "anna").rename(crops / "zoë\tand more")
    pack_folder(crops, tmp_path / "out")
    text = (tmp_path / "out" / "labels.tsv").read_text(encoding="utf-8")
    assert text == "label\tfolder\n0\tben\n1\tzoë\\tand more\n"
    (crops / "ben").rename(os.fsdecode(os.fsencode(crops) + b"/b\xe9n"))
    pack_folder(crops, tmp_path / "out", force=True)
    assert "\n0\tb\\udce9n\n" in (tmp_path / "out" / "labels.tsv").read_text(encoding="utf-8")


def test_folders_whose_names_are_nearly_one_are_said(tmp_path, caplog):
    for number, name in enumerate(("Jose\u0301", "Jos\u00e9", "ann")):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "1.jpg").write_bytes(jpeg(number))
    assert pack_folder(tmp_path / "in", tmp_path / "out").identities == 3
    (said,) = caplog.messages
    assert r"in: 'Jose\u0301' and 'Jos\xe9' are taken for two people" in said


def test_the_same_image_under_two_people_is_a_warning(tmp_path, caplog):
    crops = two_people(tmp_path / "crops")
    (crops / "cleo").mkdir()
    shown = Image.fromarray(pixels(jpeg(77)))
    (crops / "anna" / "2.jpg").write_bytes(jpeg(77))
    (crops / "ben" / "7.png").write_bytes(encoded(shown, "PNG"))
    (crops / "cleo" / "2.bmp").write_bytes(encoded(shown, "BMP"))
    (crops / "cleo" / "1.jpg").write_bytes(jpeg(99))
    (crops / "cleo" / "9.jpg").write_bytes(jpeg(99))  # twice, but one person's
    pack_folder(crops, tmp_path / "out")
    (message,) = caplog.messages
    pair = f"{crops / 'anna' / '2.jpg'} and {crops / 'ben' / '7.png'}"
    assert message.startswith(f"{pair} are the same image under two people; there are 2 such pairs")
