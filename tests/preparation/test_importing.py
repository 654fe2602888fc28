"""Sets of other formats, written by tarfile, pyarrow and lmdb, against what was put into them."""

import io
import json
import pickle
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from helpers.record_sets import ends_early, jpeg
from helpers.written_sets import shown

from arcface_cakd.cli import main
from arcface_cakd.data import DataError
from arcface_cakd.data.damage import verify
from arcface_cakd.data.record_sets import write_flat_records
from arcface_cakd.extras import MissingPackageError
from arcface_cakd.locks import FolderInUseError
from arcface_cakd.preparation.importing import importing
from arcface_cakd.preparation.importing.formats import open_source
from arcface_cakd.preparation.importing.importing import import_set
from arcface_cakd.preparation.importing.source import as_label, in_order
from arcface_cakd.preparation.merging import merge

LABELS = [3, 0, 3, 1, 2, 2, 0, 1, 3, 3]


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            head = tarfile.TarInfo(name)
            head.size = len(content)
            tar.addfile(head, io.BytesIO(content))
    return path


def samples(pool, labels, start=0):
    for number, label in enumerate(labels, start=start):
        yield f"{number:05d}.jpg", pool[number]
        yield f"{number:05d}.cls", str(label).encode()


def write_shards(folder, pool, labels=LABELS, ending="tar", per_shard=4):
    """Shards 0, 1, ... of four samples; the order of their names is not that of the alphabet."""
    folder.mkdir(exist_ok=True)
    for shard, start in enumerate(range(0, len(labels), per_shard), start=9):
        members = samples(pool, labels[start : start + per_shard], start)
        mode = "w:gz" if ending.endswith("gz") else "w"
        write_tar(folder / f"train-{shard}.{ending}", members, mode)
    return folder


def write_table(kind, folder, images, labels, metadata=None, per_file=4):
    pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)
    pytest.importorskip("pyarrow.parquet", exc_type=ImportError)

    folder.mkdir(exist_ok=True)
    table = pyarrow.table({"id_": list(range(len(labels))), "image": images, "label": labels})
    if metadata:
        table = table.replace_schema_metadata(metadata)
    count = -(-len(labels) // per_file)
    names = []
    for number in range(count):
        part = table.slice(number * per_file, per_file)
        names.append(f"data-{number:05d}-of-{count:05d}.{kind}")
        if kind == "parquet":
            pyarrow.parquet.write_table(part, folder / names[-1], row_group_size=3)
        else:
            with pyarrow.ipc.new_stream(str(folder / names[-1]), part.schema) as writer:
                writer.write_table(part, max_chunksize=3)
    if kind == "arrow":
        state = {"_data_files": [{"filename": name} for name in names]}
        (folder / "state.json").write_text(json.dumps(state))
    return folder


def write_lmdb(path, values, subdir=True):
    lmdb = pytest.importorskip("lmdb")
    database = lmdb.open(str(path), map_size=1 << 24, subdir=subdir)
    with database, database.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key, value)
    return path


def structs(images):
    return [{"bytes": image, "path": None} for image in images]


def sources(kind, folder, pool):
    """The ten samples in a format."""
    images = pool[: len(LABELS)]
    if kind in ("tar", "tar.gz"):
        return write_shards(folder, pool, ending=kind)
    if kind in ("parquet", "arrow"):
        return write_table(kind, folder, structs(images), LABELS)
    if kind == "bare parquet":
        return write_table("parquet", folder, images, LABELS)
    pairs = list(enumerate(zip(images, LABELS, strict=True)))
    if kind == "numbered lmdb":
        values = {b"image-%09d" % (n + 1): image for n, (image, _) in pairs}
        values |= {b"label-%09d" % (n + 1): b"%d" % label for n, (_, label) in pairs}
        return write_lmdb(folder, values | {b"num-samples": b"%d" % len(pairs)})
    if kind == "pickled lmdb":
        values = {b"%d" % n: pickle.dumps((image, np.int64(label))) for n, (image, label) in pairs}
        return write_lmdb(folder.with_suffix(".lmdb"), values, subdir=False)
    msgpack = pytest.importorskip("msgpack")
    keys = [b"%d" % n for n, _ in pairs]
    values = {
        b"%d" % n: msgpack.dumps((image, b"\x93NUMPY...", label)) for n, (image, label) in pairs
    }
    return write_lmdb(
        folder, values | {b"__keys__": msgpack.dumps(keys), b"__len__": msgpack.dumps(len(keys))}
    )


KINDS = [
    *("tar", "tar.gz", "parquet", "bare parquet", "arrow"),
    *("lmdb", "numbered lmdb", "pickled lmdb"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_the_same_bytes_in_the_same_order(kind, tmp_path, pool, capsys):
    source, out, plain = sources(kind, tmp_path / "in", pool), tmp_path / "out", tmp_path / "plain"
    assert main(["data", "import", str(source), str(out)]) == 0
    assert "10 images of 4 people" in capsys.readouterr().out
    write_flat_records(plain, zip(pool, LABELS, strict=False), 4)
    for name in ("train.rec", "train.idx", "property"):
        assert (out / name).read_bytes() == (plain / name).read_bytes()
    names = ["property", "train.idx", "train.rec", "train.sha256"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert verify(out) == (10, [])
    assert main(["data", "import", str(source), str(out)]) == 1
    assert "with --force" in capsys.readouterr().err


def test_files_come_in_the_order_of_the_command_line(tmp_path, pool):
    folder = write_shards(tmp_path / "in", pool)
    shards = [folder / f"train-{number}.tar" for number in (10, 9, 11)]
    import_set(open_source(shards), tmp_path / "out")
    order = [4, 5, 6, 7, 0, 1, 2, 3, 8, 9]
    assert shown(tmp_path / "out").images == [pool[number] for number in order]


NAMES = ["zoe", "adam", "zoe", "7", "eve\u2028smith", "adam"]


@pytest.mark.parametrize("kind", ["tar", "parquet", "lmdb"])
def test_names_are_numbered_as_they_come(kind, tmp_path, pool):
    if kind == "tar":
        source = write_shards(tmp_path / "in", pool, NAMES)
    elif kind == "parquet":
        source = write_table("parquet", tmp_path / "in", pool[: len(NAMES)], NAMES)
    else:
        values = {f"{name}/{n}.jpg".encode(): pool[n] for n, name in enumerate(NAMES)}
        source = write_lmdb(tmp_path / "in", values)
    import_set(open_source([source]), tmp_path / "out", labels="names")
    found = shown(tmp_path / "out")
    order = list(range(len(NAMES)))
    if kind == "lmdb":
        order.sort(key=lambda n: f"{NAMES[n]}/{n}.jpg")
    assert found.images == [pool[n] for n in order]
    assert [found.names[label] for label in found.labels] == [NAMES[n] for n in order]
    assert list(found.names.values()) == list(dict.fromkeys(NAMES[n] for n in order))
    assert found.heading == "name"


def test_names_of_class_labels_are_kept(tmp_path, pool):
    label = {"_type": "ClassLabel", "names": ["ann", "bob", "cleo", "dan"]}
    features = {"image": {"_type": "Image"}, "label": label}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    source = write_table("arrow", tmp_path / "in", structs(pool[:10]), LABELS, metadata)
    import_set(open_source([source]), tmp_path / "out")
    assert shown(tmp_path / "out").labels == LABELS
    assert shown(tmp_path / "out").names == dict(enumerate(label["names"]))
    import_set(open_source([source]), tmp_path / "anew", labels="names")
    order = ["dan", "ann", "bob", "cleo"]  # as they come
    assert shown(tmp_path / "anew").names == dict(enumerate(order))


class TestStopped:
    KILLED = """
import os, signal, sys
from arcface_cakd.preparation.importing import importing
from arcface_cakd.preparation.importing.formats import open_source
from arcface_cakd.preparation.importing.growing import GrowingRecords
importing._SAVE_EVERY = 3
left, add = int(sys.argv[3]), GrowingRecords.add
def counted(self, encoded, label):
    global left
    left -= 1
    if left < 0:
        for file in self._files.values():
            file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, encoded, label)
GrowingRecords.add = counted
importing.import_set(open_source([sys.argv[1]]), sys.argv[2])
"""

    @pytest.mark.parametrize(("kind", "images"), [("tar.gz", 5), ("arrow", 8)])
    def test_a_killed_import_goes_on_to_the_same_bytes(self, kind, images, tmp_path, pool, caplog):
        names = [f"p{label}" for label in LABELS]
        source = sources(kind, tmp_path / "in", pool)
        if kind == "tar.gz":
            source = write_shards(tmp_path / "named", pool, names, ending=kind)
        out = tmp_path / "out"
        command = [sys.executable, "-c", self.KILLED, str(source), str(out), str(images)]
        assert subprocess.run(command).returncode == -signal.SIGKILL
        assert {path.name for path in out.iterdir()} == {".import", ".lock"}
        caplog.set_level("INFO")
        imported = import_set(open_source([source]), out)
        assert imported.resumed == images // 3 * 3
        assert f"goes on behind {imported.resumed} images" in caplog.text
        import_set(open_source([source]), tmp_path / "unstopped")
        for path in (tmp_path / "unstopped").iterdir():
            assert (out / path.name).read_bytes() == path.read_bytes()
        assert len(list(out.iterdir())) == len(list((tmp_path / "unstopped").iterdir()))

    def test_an_import_of_something_else_does_not_go_on_there(self, tmp_path, pool):
        source = write_shards(tmp_path / "in", pool, [*LABELS[:3], ""])  # one without a label
        with pytest.raises(DataError, match="its label is empty"):
            import_set(open_source([source]), tmp_path / "out")
        other = write_shards(tmp_path / "other", pool)
        with pytest.raises(DataError, match=r"\.import: an import of other files or settings"):
            import_set(open_source([other]), tmp_path / "out")
        assert import_set(open_source([source]), tmp_path / "out", skip_bad=True).images == 3


def broken(pool):
    """A shard, and what of it cannot be taken."""
    yield from samples(pool, [0, 1])
    yield "00002.jpg", pool[2]  # without a label
    yield "00003.jpg", pool[3][:500]
    yield "00003.cls", b"1"
    yield "00004.cls", b"1"
    yield "00005.jpg", jpeg(5, (96, 96))
    yield "00005.cls", b"0"
    yield "00006.jpg", pool[6]
    yield "00006.cls", b"-1"
    yield "00007.jpg", pool[7]
    yield "00007.cls", b"ann"
    yield "00008.jpg", pool[8]
    yield "00008.cls", b"20000000"
    yield "00009.jpg", pool[9]
    yield "00009.png", pool[9]
    yield "00009.cls", b"1"
    yield from samples(pool, [1], start=10)


BROKEN = {
    2: "no .cls among its members (00002.jpg)",
    3: "the image does not decode",
    4: "no image among its members (00004.cls)",
    5: "the image is 96 x 96, not 112 x 112",
    6: "its label is -1, which means that it has none",
    7: "its label 'ann' is no number, as the first is; --labels names",
    8: "its label 20000000 is not one of 0 to",
    9: "2 of kind image among its members",
}


def test_two_imports_do_not_write_to_one_folder(tmp_path, pool, monkeypatch):
    """Not even where the first has all records, and puts them in place."""
    shards = [write_shards(tmp_path / "shards", pool)]
    write, refused = importing.write_digests, []

    def meanwhile(path):
        with pytest.raises(FolderInUseError, match="is writing to it") as raised:
            import_set(open_source(shards), tmp_path / "out")
        refused.append(raised.value)
        write(path)

    monkeypatch.setattr(importing, "write_digests", meanwhile)
    assert import_set(open_source(shards), tmp_path / "out").images == len(LABELS)
    assert len(refused) == 1
    assert verify(tmp_path / "out") == (len(LABELS), [])
    assert not sorted((tmp_path / "out").glob(".*"))


def test_every_bad_sample_is_named_and_left_out_on_demand(tmp_path, pool, caplog, capsys):
    (tmp_path / "in").mkdir()
    tar = write_tar(tmp_path / "in/a.tar", broken(pool))
    command = ["data", "import", str(tar), str(tmp_path / "out")]
    assert main(command) == 1
    assert len(caplog.messages) == len(BROKEN)
    for message, (number, problem) in zip(caplog.messages, BROKEN.items(), strict=True):
        assert message.startswith(f"{tar}, {number:05d}: {problem}")
    printed = capsys.readouterr().err
    assert "(8 of 11 samples cannot be taken" in printed and "--skip-bad" in printed
    assert not (tmp_path / "out/train.rec").exists()
    assert main([*command, "--skip-bad"]) == 0
    assert "3 images of 2 people; 8 left out" in capsys.readouterr().out
    assert shown(tmp_path / "out").images == [pool[0], pool[1], pool[10]]
    assert (tmp_path / "out/left_out.tsv").read_text().splitlines() == caplog.messages[:8]


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
@pytest.mark.parametrize("share", [0.3, 0.55, 0.9])
def test_a_cut_shard_is_never_taken_for_a_whole_one(ending, share, tmp_path, pool, caplog):
    folder = write_shards(tmp_path / "in", pool, ending=ending, per_shard=5)
    first = folder / f"train-9.{ending}"
    stored = first.read_bytes()
    end = len(stored) if ending == "tar.gz" else stored.rstrip(b"\0").__len__()
    first.write_bytes(stored[: int(share * end)])
    with pytest.raises(DataError, match="cut or damaged"):
        import_set(open_source([folder]), tmp_path / "out")
    imported = import_set(open_source([folder]), tmp_path / "out", skip_bad=True)
    found = shown(tmp_path / "out").images
    kept = len(found) - 5
    assert 0 < kept < 5 and imported.skipped >= 1
    assert found == pool[:kept] + pool[5:10]


def test_a_shard_without_its_end_or_with_a_damaged_head_is_found(tmp_path, pool):
    folder = write_shards(tmp_path / "in", pool)
    path = folder / "train-9.tar"
    stored = path.read_bytes()
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    end = members[-1].offset_data + 512
    damaged = bytearray(stored)
    damaged[members[4].offset + 10] ^= 1
    for bad, kept in ((stored[:end], 4), (bytes(damaged), 2)):
        path.write_bytes(bad)
        (sample,) = [s for s in open_source([path]).read(0, 0) if s.problem]
        assert "cut or damaged" in sample.problem
        assert len(list(open_source([path]).read(0, 0))) == kept + 1
        assert len(list(open_source([path]).read(0, kept))) == 1
        assert not list(open_source([path]).read(0, kept + 1))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_damaged_tables_are_found(kind, tmp_path, pool, caplog):
    source = sources(kind, tmp_path / "in", pool)
    path = next(source.glob("data-00001*"))
    stored = bytearray(path.read_bytes())
    if kind == "arrow":
        path.write_bytes(stored[: len(stored) * 6 // 10])
    else:
        stored[len(stored) * 5 // 10 : len(stored) * 9 // 10] = bytes(
            len(stored) * 9 // 10 - len(stored) * 5 // 10
        )
        path.write_bytes(stored)
    with pytest.raises(DataError):
        import_set(open_source([source]), tmp_path / "out")
    import_set(open_source([source]), tmp_path / "out", skip_bad=True)
    found = shown(tmp_path / "out").images
    assert found[:4] == pool[:4] and found[-2:] == pool[8:10] and len(found) < 10
    assert (tmp_path / "out/left_out.tsv").read_text().startswith(str(path))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: (f / "a.zip").write_bytes(b""), "holds no webdataset tars, parquet"),
        (lambda f: (f / "a.tar").touch() or (f / "b.parquet").touch(), "are of two formats"),
        (lambda f: (f / "a-00000-of-00003.parquet").touch(), "2 of 3 files are missing, number 1"),
        (
            lambda f: (f / "dataset_dict.json").write_text('{"splits": ["train"]}'),
            "holds the splits train: give the folder of one, such as .*train",
        ),
        (
            lambda f: (f / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}'),
            "x.arrow: no such file, which state.json names",
        ),
        (lambda f: (f / "a.parquet").write_bytes(b"no table"), "no parquet file, or damaged"),
        (lambda f: (f / "data.mdb").write_bytes(b"no database"), "no LMDB database, or damaged"),
    ],
)
def test_what_is_no_such_set_is_said_in_a_line(make, says, tmp_path):
    if "parquet" in says:
        pytest.importorskip("pyarrow", exc_type=ImportError)
    make(tmp_path)
    with pytest.raises(DataError, match=says) as caught:
        open_source([tmp_path])
    assert "\n" not in str(caught.value)


def test_columns_are_found_by_name_or_asked_for(tmp_path, pool, capsys):
    pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)
    pytest.importorskip("pyarrow.parquet", exc_type=ImportError)

    table = pyarrow.table({"face": pool[:3], "who": ["a", "b", "a"], "age": [1, 2, 3]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    command = ["data", "import", str(tmp_path / "a.parquet"), str(tmp_path / "out")]
    assert main(command) == 1
    assert "which of its columns, face, who, age, is it? Say so with --image" in (
        capsys.readouterr().err
    )
    assert main([*command, "--image", "face", "--label", "name"]) == 1
    assert "has no column 'name'" in capsys.readouterr().err
    assert main([*command, "--image", "face", "--label", "who"]) == 0
    assert shown(tmp_path / "out").people() == {"a": [pool[0], pool[2]], "b": [pool[1]]}


@pytest.mark.parametrize(
    ("columns", "option"), [(("image", "id", "name"), "label"), (("image", "png", "name"), "image")]
)
def test_columns_that_may_each_be_the_one_are_asked_for(columns, option, tmp_path, pool, caplog):
    pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)
    pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    cells = {"image": pool[:4], "png": pool[:4], "id": [0, 1, 2, 3], "name": ["a", "a", "b", "b"]}
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({name: cells[name] for name in columns}), path)
    says = f"each of its columns .*, .* may be it: say which with --{option}"
    with pytest.raises(DataError, match=says):
        open_source([path])
    if option == "label":  # which one of these is called so is none of the question
        labelled = pyarrow.table({"label": cells["name"], **{n: cells[n] for n in columns}})
        pyarrow.parquet.write_table(labelled, tmp_path / "labelled.parquet")
        caplog.set_level("INFO")
        assert import_set(open_source([tmp_path / "labelled.parquet"]), tmp_path / "l").people == 2
        assert "labels of 'label'" in caplog.text
    caplog.set_level("INFO")
    source = open_source([path], **{option: "name" if option == "label" else "image"})
    assert "images are of column 'image', labels of 'name'" in caplog.text
    assert import_set(source, tmp_path / "out").people == 2


def test_files_that_name_their_class_labels_differently_are_not_one_table(tmp_path, pool):
    def metadata(*names):
        label = {"_type": "ClassLabel", "names": names}
        return {"huggingface": json.dumps({"info": {"features": {"label": label}}})}

    folder = write_table("parquet", tmp_path / "a", pool[:2], [0, 1], metadata("ann", "bob"))
    other = write_table("parquet", tmp_path / "b", pool[2:4], [0, 1], metadata("cleo", "dan"))
    paths = [next(each.iterdir()) for each in (folder, other)]
    with pytest.raises(DataError, match=r"names its class labels otherwise than .*: import each"):
        open_source(paths)
    # One that names none says nothing else of them.
    bare = next(write_table("parquet", tmp_path / "c", pool[2:4], [0, 1]).iterdir())
    assert open_source([paths[0], bare]).label_names == ["ann", "bob"]
    # As it says.
    for path, name in zip(paths, ("one", "two"), strict=True):
        import_set(open_source([path]), tmp_path / name)
    assert merge([tmp_path / "one", tmp_path / "two"], tmp_path / "out").people == 4


@pytest.mark.parametrize("labels", ["auto", "names"])
def test_a_label_that_means_none_is_nobody_s(labels, tmp_path, pool, caplog):
    label = {"_type": "ClassLabel", "names": ["ann", "bob"]}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
    source = write_table("parquet", tmp_path / "in", pool[:5], [0, 1, -1, 7, -1], metadata)
    with pytest.raises(DataError, match="its label is -1, which means that it has none") as caught:
        import_set(open_source([source]), tmp_path / "out", labels=labels)
    assert "--labels" not in str(caught.value)
    assert "row 3: its label 7 is none of the 2 that have a name" in caplog.text
    imported = import_set(open_source([source]), tmp_path / "out", labels=labels, skip_bad=True)
    assert (imported.images, imported.people, imported.skipped) == (2, 2, 3)
    assert shown(tmp_path / "out").names == {0: "ann", 1: "bob"}


def test_an_empty_name_of_a_class_is_none(tmp_path, pool):
    label = {"_type": "ClassLabel", "names": ["", "bob", " "]}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
    source = write_table("parquet", tmp_path / "in", pool[:3], [0, 1, 2], metadata)
    import_set(open_source([source]), tmp_path / "out")
    assert shown(tmp_path / "out").names == {1: "bob"}


def test_files_are_given_once_and_what_a_folder_has_besides_is_said(tmp_path, pool, caplog):
    folder = write_shards(tmp_path / "in", pool)
    shard = folder / "train-9.tar"
    (tmp_path / "link.tar").symlink_to(shard)
    with pytest.raises(DataError, match=r"train-9\.tar: is given twice"):
        open_source([shard, tmp_path / "link.tar"])
    (folder / "train-12.tar.zst").write_bytes(b"a shard")
    (folder / "more").mkdir()
    (folder / ".DS_Store").touch()
    open_source([folder])
    assert "left out: 2 that are no webdataset tars, parquet" in caplog.text
    assert "(more, train-12.tar.zst)" in caplog.text


def test_linked_members_of_a_tar_are_named(tmp_path, pool):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in samples(pool, [0, 1]):
            head = tarfile.TarInfo(name)
            head.size = len(content)
            tar.addfile(head, io.BytesIO(content))
        for ending in ("jpg", "cls"):
            head = tarfile.TarInfo(f"00002.{ending}")
            head.type, head.linkname = tarfile.LNKTYPE, f"00000.{ending}"
            tar.addfile(head)
    with pytest.raises(DataError, match="00002: its label is empty"):
        import_set(open_source([path]), tmp_path / "out")


def test_what_a_database_does_not_list_is_said(tmp_path, pool, caplog):
    msgpack = pytest.importorskip("msgpack")
    values = {b"%d" % n: msgpack.dumps((pool[n], n)) for n in range(4)}
    values |= {b"__len__": msgpack.dumps(4), b"__classnum__": msgpack.dumps(4)}
    keys = list(values)[:4]
    open_source([write_lmdb(tmp_path / "all", values | {b"__keys__": msgpack.dumps(keys)})])
    assert not caplog.messages
    open_source([write_lmdb(tmp_path / "part", values | {b"__keys__": msgpack.dumps(keys[:3])})])
    assert "1 of its values are left out, for its __keys__ do not name them" in caplog.text
    values = {b"image-%09d" % n: pool[n] for n in range(1, 4)}
    open_source([write_lmdb(tmp_path / "numbered", values | {b"num-samples": b"2"})])
    assert "from image-000000003 on is left out, for its num-samples is 2" in caplog.text


def test_databases_that_are_odd_are_said_to_be(tmp_path, pool):
    people = write_lmdb(
        tmp_path / "own", {b"__a/1.jpg": pool[0], b"b/1.jpg": pool[1], b"__x__": b""}
    )
    assert import_set(open_source([people]), tmp_path / "out").people == 2
    numbered = write_lmdb(tmp_path / "odd", {b"num-samples": b"many", b"image-000000001": pool[0]})
    with pytest.raises(DataError, match="odd: its num-samples is no number"):
        open_source([numbered])


def test_where_all_samples_are_bad_it_says_why(tmp_path, pool):
    source = write_shards(tmp_path / "in", pool, ["", "-1"])
    with pytest.raises(DataError, match="its label is empty; all 2 samples are bad"):
        import_set(open_source([source]), tmp_path / "out", skip_bad=True)


def test_folders_of_one_name_in_a_database_are_named(tmp_path, pool, caplog):
    keys = [b"ann/video1/1.jpg", b"bob/video1/1.jpg", b"bob/video2/1.jpg"]
    source = write_lmdb(tmp_path / "in", dict(zip(keys, pool, strict=False)))
    assert import_set(open_source([source]), tmp_path / "out").people == 2
    (said,) = caplog.messages
    assert "images under ann/video1 and bob/video1 are taken for one person's, as 1 folder" in said


def test_names_in_bytes_that_are_no_text_stay_apart(tmp_path, pool):
    source = write_lmdb(
        tmp_path / "in", {b"Jos\xe8/1.jpg": pool[0], b"Jos\xe9/1.jpg": pool[1], b"x/1.jpg": pool[2]}
    )
    import_set(open_source([source]), tmp_path / "out")
    assert shown(tmp_path / "out").names == {0: "Jos\\xe8", 1: "Jos\\xe9", 2: "x"}


def test_names_that_are_nearly_one_are_said(tmp_path, pool, caplog):
    names = ["Jos\u00e9", "Jose\u0301", "ann lee", "Ann  Lee", "ann lee"]
    source = write_shards(tmp_path / "in", pool, names)
    assert import_set(open_source([source]), tmp_path / "out").people == 4
    assert r"'Jos\xe9' and 'Jose\u0301' are taken for two people" in caplog.text
    assert "2 name(s) do" in caplog.text


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"package pyarrow: pip install 'arcface_cakd\[p"):
        open_source([tmp_path / "a.parquet"])


def test_names_of_files_come_by_their_numbers(tmp_path):
    names = ["a-10.tar", "a-9.tar", "a-1.tar", "b.tar"]
    found = in_order([tmp_path / name for name in names])
    assert [path.name for path in found] == ["a-1.tar", "a-9.tar", "a-10.tar", "b.tar"]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["test-00000-of-00001.tar", "train-00000-of-00002.tar"], "train: 1 of 2"),
        (["test-1-of-2.tar", "test-2-of-2.tar", "train-0-of-2.tar", "more.tar"], "train: 1 of 2"),
        (["train-0-of-2-0a1b.parquet", "train-1-of-2-9c3d.parquet"], None),
    ],
)
def test_files_that_are_missing_are_named_by_split(names, missing, tmp_path):
    paths = [tmp_path / name for name in names]
    if missing is None:
        assert in_order(paths) == paths
    else:
        with pytest.raises(DataError, match=f"{missing} files are missing, number 1 first"):
            in_order(paths)


@pytest.mark.parametrize("label", [None, True, 1.5, float("nan"), float("inf"), "", [1]])
def test_what_is_no_label(label):
    with pytest.raises(ValueError, match="its label is"):
        as_label(label)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (3, 3),
        (3.0, 3),
        (np.int32(3), 3),
        (b"3\n", 3),
        ("-1", -1),
        ("007", "007"),
        ("\u0663", "\u0663"),
        ("3a", "3a"),
    ],
)
def test_what_is_a_label(value, label):
    assert as_label(value) == label and type(as_label(value)) is type(label)


def test_leading_zeros_are_of_a_name_and_of_no_number(tmp_path, pool):
    labels = ["007", "7", "08", "7", "007"]
    source = write_shards(tmp_path / "in", pool, labels)
    import_set(open_source([source]), tmp_path / "numbers")
    assert shown(tmp_path / "numbers").labels == [7, 7, 8, 7, 7]
    import_set(open_source([source]), tmp_path / "names", labels="names")
    found = shown(tmp_path / "names")
    assert [found.names[label] for label in found.labels] == labels


class TestVerificationSets:
    def write(self, folder, pool, same=None, order=None):
        pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)
        same = [n % 2 == 0 for n in range(10)] if same is None else same
        rows = {
            "image": structs(pool[:20]),
            "index": list(range(20)),
            "is_same": [truth for truth in same for _ in range(2)],
        }
        table = pyarrow.table(rows)
        if order is not None:
            table = table.take(order)
        folder.mkdir()
        with pyarrow.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as new:
            new.write_table(table, max_chunksize=7)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (folder / "state.json").write_text(json.dumps(state))
        return folder

    @pytest.mark.parametrize("order", [None, np.random.default_rng(0).permutation(20)])
    def test_cvlfaces_folders_become_bins(self, order, tmp_path, pool, capsys):
        folder = self.write(tmp_path / "lfw", pool, order=order)
        assert main(["data", "import", str(folder), str(tmp_path / "lfw.bin")]) == 0
        assert "10 pairs, 5 of one person and 5 of two" in capsys.readouterr().out
        with open(tmp_path / "lfw.bin", "rb") as file:
            assert pickle.load(file) == (pool[:20], [n % 2 == 0 for n in range(10)])
        assert main(["data", "import", str(folder), str(tmp_path / "out")]) == 1
        assert "must end in .bin" in capsys.readouterr().err
        words = ["data", "import", str(folder), str(tmp_path / "other.bin")]
        for option in (["--image", "a"], ["--label", "a"], ["--labels", "auto"], ["--skip-bad"]):
            assert main([*words, *option]) == 1
            assert f"{option[0]} is of a training set" in capsys.readouterr().err

    def test_a_former_sets_people_go_with_it(self, tmp_path, pool, capsys):
        folder = self.write(tmp_path / "lfw", pool)
        who = tmp_path / "lfw_people.tsv"
        who.write_text("ann\tben\n")
        command = ["data", "import", str(folder), str(tmp_path / "lfw.bin")]
        assert main(command) == 1 and who.exists()
        assert "lfw_people.tsv: is there" in capsys.readouterr().err
        assert main([*command, "--force"]) == 0 and not who.exists()

    def test_rows_that_are_missing_or_contradict_are_refused(self, tmp_path, pool, capsys):
        lacking = self.write(tmp_path / "a", pool, order=list(range(19)))
        single = self.write(tmp_path / "b", pool, same=[True] * 10)
        damaged = self.write(tmp_path / "c", [*pool[:7], ends_early(pool[7]), *pool[8:20]])
        for folder, says in (
            (lacking, "its 19 rows are not of"),
            (single, "show one identity"),
            (damaged, "row 7: the image does not decode"),
        ):
            assert main(["data", "import", str(folder), str(tmp_path / "lfw.bin")]) == 1
            assert says in capsys.readouterr().err
        assert not (tmp_path / "lfw.bin").exists()
