"""Folders of identities' folders: what is an image, what is left out, what is refused."""

import os

import numpy as np
import pytest
from helpers.record_sets import encoded, jpeg, pixels
from helpers.unreadable import make_unreadable
from PIL import Image

from arcface_cakd.cli import main
from arcface_cakd.data import DataError, get_dataloader
from arcface_cakd.data.damage import verify
from arcface_cakd.data.folder import FaceFolder, identity_folders
from arcface_cakd.data.image_files import SUFFIXES, begins_as_image
from arcface_cakd.data.image_tree import image_tree
from arcface_cakd.data.inspection import inspect, parts_of
from arcface_cakd.preparation.packing import Packed, pack_folder
from arcface_cakd.recordio import MXIndexedRecordIO, unpack

Image.init()
KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tiff": "TIFF",
         "ppm": "PPM", "avif": "AVIF"}  # fmt: skip
KINDS = {suffix: kind for suffix, kind in KINDS.items() if kind in Image.SAVE}


def put(root, *names, data=None):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number) if data is None else data)
    return root


def images_of(root):
    return {name: [str(p.relative_to(root)) for p in paths]
            for name, paths in identity_folders(root).identities}  # fmt: skip


class TestFormats:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", ["1.{}", "1.{}x", "1", "photo.of.someone", "1.txt"])
    def test_each_is_taken_with_or_without_suffix(self, tmp_path, kind, name):
        picture = Image.fromarray(pixels(jpeg(5)))
        put(tmp_path, "a/1.jpg", "b/1.jpg")
        put(tmp_path, f"b/x{name.format(kind)}", data=encoded(picture, KINDS[kind]))
        assert len(images_of(tmp_path)["b"]) == 2
        loader = get_dataloader(tmp_path, 3, seed=0, num_workers=0)
        ((_, labels),) = list(loader)
        assert sorted(labels.tolist()) == [0, 1, 1]
        assert verify(tmp_path) == (3, [])

    def test_other_suffixes_of_the_same(self, tmp_path):
        names = [f"b/x{suffix}" for suffix in sorted(SUFFIXES)]
        put(tmp_path, "a/1.jpg", *names, "b/1.JPE", "b/2.jfif")
        assert len(images_of(tmp_path)["b"]) == len(names) + 2

    @pytest.mark.parametrize("mode", ["L", "RGB", "1"])
    def test_plain_netpbm_and_grey(self, mode):
        picture = Image.fromarray(pixels(jpeg(5))).convert(mode)
        assert begins_as_image(encoded(picture, "PPM")[:18]) == (mode != "1")
        assert begins_as_image(b"P2\n# a comment\n2 1\n255\n0 1\n")

    def test_what_only_begins_alike_is_none(self):
        texts = (b"", b"P", b"P5", b"Personal notes", b"BMW, a car of my own", b"PK\3\4")
        others = (b"RIFF1234WAVEfmt ", b"\0\0\0 ftypheic", b"MMORPG", b"GIF", b"\xff\xd8")
        for text in (*texts, *others):
            assert not begins_as_image(text[:18])

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_is_packed(self, tmp_path, kind):
        picture = Image.fromarray(pixels(jpeg(5)))
        put(tmp_path / "in", "a/1.jpg")
        data = encoded(picture, KINDS[kind])
        put(tmp_path / "in", "b/1", data=data)
        assert pack_folder(tmp_path / "in", tmp_path / "out") == Packed(2, 2, [])
        reader = MXIndexedRecordIO(tmp_path / "out/train.idx", tmp_path / "out/train.rec", "r")
        packed = pixels(unpack(reader.read_idx(2))[1]).astype(int)
        assert np.abs(packed - pixels(data)).mean() < 6


class TestLinks:
    def test_are_followed(self, tmp_path):
        put(tmp_path / "store", "1/0.jpg", "1/1.jpg", "2/0.jpg")
        put(tmp_path / "set", "a/0.jpg", "b/0.jpg")
        (tmp_path / "set" / "a" / "9.jpg").symlink_to(tmp_path / "store" / "2" / "0.jpg")
        (tmp_path / "set" / "b" / "shoot").symlink_to(tmp_path / "store" / "1")
        (tmp_path / "set" / "c").symlink_to(tmp_path / "store" / "2")
        assert images_of(tmp_path / "set") == {
            "a": ["a/0.jpg", "a/9.jpg"],
            "b": ["b/0.jpg", "b/shoot/0.jpg", "b/shoot/1.jpg"],
            "c": ["c/0.jpg"],
        }

    @pytest.mark.parametrize("link", ["a/9.jpg", "a/nested/9", "9.jpg", "c"])
    def test_that_lead_nowhere_are_refused(self, tmp_path, link):
        put(tmp_path, "a/0.jpg", "a/nested/0.jpg", "b/0.jpg")
        (tmp_path / link).symlink_to(tmp_path / "gone")
        for use in (identity_folders, verify, inspect, FaceFolder):
            if use is verify:
                ((damage,), _) = verify(tmp_path)[::-1]
                assert "leads nowhere" in damage["problem"]
                continue
            with pytest.raises(DataError, match=rf"{link}: a link that leads nowhere, 1 in all"):
                use(tmp_path)

    def test_all_of_them_are_counted(self, tmp_path):
        put(tmp_path, "a/0.jpg", "b/0.jpg")
        for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg"):
            (tmp_path / name).symlink_to("gone")
        with pytest.raises(DataError, match=r"a/1\.jpg: a link that leads nowhere, 3 in all"):
            identity_folders(tmp_path)

    def test_that_lead_in_a_circle_are_refused(self, tmp_path):
        put(tmp_path, "a/0.jpg", "b/0.jpg")
        (tmp_path / "a" / "up").symlink_to(tmp_path)
        with pytest.raises(DataError, match="a/up: a link back to a folder that it is in"):
            identity_folders(tmp_path)


def test_records_in_the_place_of_folders_are_said_to_be_records(tmp_path):
    put(tmp_path, "train.rec", "train.idx", data=b"records")
    for use in (identity_folders, image_tree):
        with pytest.raises(DataError, match="holds records, and folders of images are what is"):
            use(tmp_path)


class TestLeftOut:
    def test_is_counted_and_named(self, tmp_path, caplog, capsys):
        put(tmp_path, "a/0.jpg", "b/0.jpg", *(f"x{i}.jpg" for i in range(5)), "y")
        put(tmp_path, "b/notes.txt", "b/Thumbs.db", "list.csv", data=b"no image")
        put(tmp_path, "property", "labels.tsv", "lfw.bin", "a/.hidden", data=b"known")
        expected = (
            f"{tmp_path}: left out: 6 images beside the identities' folders (x0.jpg, x1.jpg, "
            "x2.jpg, ...); 3 files that are no images (list.csv, b/Thumbs.db, b/notes.txt)"
        )
        for use in (FaceFolder, verify, lambda path: pack_folder(path, path.parent / "out")):
            caplog.clear()
            use(tmp_path)
            assert caplog.messages[:1] == [expected]
        assert main(["data", "inspect", str(tmp_path)]) == 1  # lfw.bin is none
        (tmp_path / "lfw.bin").unlink()
        assert main(["data", "inspect", str(tmp_path)]) == 0
        assert "left out: 6 images beside the identities' folders" in capsys.readouterr().out

    def test_nothing_is_silent(self, tmp_path, caplog):
        put(tmp_path, "a/0.jpg", "b/deep/er/0.jpg")
        FaceFolder(tmp_path)
        assert caplog.text == ""

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_what_cannot_be_read_is_refused(self, tmp_path):
        put(tmp_path, "a/0.jpg", "b/0.jpg", "b/nosuffix")
        (tmp_path / "b/nosuffix").chmod(0)
        with pytest.raises(DataError, match="b/nosuffix: cannot be read"):
            identity_folders(tmp_path)

    def test_a_folder_that_cannot_be_read_is_refused(self, tmp_path, monkeypatch):
        put(tmp_path, "a/0.jpg", "b/inner/0.jpg", "c/0.jpg")
        make_unreadable(monkeypatch, "inner")
        for use in (identity_folders, image_tree):
            with pytest.raises(DataError, match=r"b/inner: cannot be read: Permission denied$"):
                use(tmp_path)

    def test_beside_bins_a_folder_that_cannot_be_read_is_said(self, tmp_path, monkeypatch, caplog):
        put(tmp_path, "lfw.bin", "lost+found/0.jpg")
        make_unreadable(monkeypatch, "lost+found")
        assert parts_of(tmp_path) == [("bin", tmp_path / "lfw.bin")]
        assert "lost+found: cannot be read: Permission denied; it is left out" in caplog.text

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without them")
    @pytest.mark.parametrize("name", ["pipe", "pipe.jpg"])
    def test_a_named_pipe_is_no_image(self, tmp_path, name):
        put(tmp_path, "a/0.jpg", "b/0.jpg")
        os.mkfifo(tmp_path / "b" / name)
        writer = os.open(tmp_path / "b" / name, os.O_RDWR)  # else what opens it waits for ever
        os.write(writer, jpeg(1))
        images, others = image_tree(tmp_path)
        os.close(writer)
        assert others == [tmp_path / "b" / name] == identity_folders(tmp_path).others
        assert images == [tmp_path / "a/0.jpg", tmp_path / "b/0.jpg"]


class TestRefused:
    def test_one_identity(self, tmp_path):
        put(tmp_path, "someone/0.jpg", "someone/1.jpg", "loose.jpg")
        for use in (FaceFolder, inspect, lambda path: pack_folder(path, path / "out")):
            with pytest.raises(DataError, match="one identity alone, someone, and there must be"):
                use(tmp_path)
        assert main(["data", "verify", str(tmp_path)]) == 1

    @pytest.mark.parametrize(
        ("names", "give"),
        [
            (["images/a/0.jpg", "images/b/0.jpg"], "images"),
            (["data/images/a/0.jpg", "data/images/b/0.jpg"], "data/images"),
            (["train/a/0.jpg", "train/b/0.jpg", "val/c/0.jpg"], "train"),
            (["test/c/0.jpg", "Train/a/0.jpg", "Train/b/0.jpg"], "Train"),
            (["images/a/0.jpg", "images/b/0.jpg", "annotations/a.xml"], "images"),
            (["my faces/a/0.jpg", "my faces/b/0.jpg", "readme.txt"], "my faces"),
            (["images/only/0.jpg"], "images/only"),
        ],
    )
    def test_one_level_too_high(self, tmp_path, names, give):
        for name in names:
            put(tmp_path, name, data=b"text" if name.endswith(("xml", "txt")) else None)
        give = tmp_path / give
        if give.name == "only":  # one person, however deep
            give = tmp_path / "images"
        for use in (FaceFolder, inspect, lambda path: pack_folder(path, path / "out")):
            with pytest.raises(DataError, match=r"hold folders, not one person's images") as error:
                use(tmp_path)
            assert str(error.value).endswith(f": give {give}")
        if len(identities := [p for p in give.iterdir() if p.is_dir()]) > 1:
            assert len(images_of(give)) == len(identities)

    def test_people_whose_images_are_in_folders_are_no_wrapping(self, tmp_path):
        put(tmp_path, "anna/2019/0.jpg", "anna/2020/0.jpg", "ben/2020/0.jpg")
        assert {name: len(paths) for name, paths in images_of(tmp_path).items()} == {
            "anna": 2,
            "ben": 1,
        }
