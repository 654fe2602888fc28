"""Verification sets: round trips, old files, and pickles that mean harm."""

import io
import pickle
import random
import tracemalloc

import numpy as np
import pytest
from helpers.record_sets import encoded, jpeg, pixels
from PIL import Image

from arcface_cakd.data import DataError, VerificationSet, read_bin, write_bin
from arcface_cakd.data.bins import load_bin
from arcface_cakd.data.damage import verify
from arcface_cakd.evaluation import EvaluationError, verification_metrics

IMAGES = [jpeg(seed) for seed in range(4)]
ISSAME = [True, False]


class Attack:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def python_2_pickle(images: list[bytes], issame: list[bool]) -> bytes:
    """Protocol 2 as Python 2 writes it: its strings are bytes (opcodes U and T)."""
    text = b"\x80\x02]("
    for image in images:
        text += b"T" + len(image).to_bytes(4, "little") + image
    text += b"e]("
    text += b"".join(b"\x88" if same else b"\x89" for same in issame)
    return text + b"e\x86."


def check(path) -> None:
    loaded = read_bin(path)
    assert loaded.images.dtype == np.uint8 and loaded.issame.dtype == bool
    np.testing.assert_array_equal(loaded.images, np.stack([pixels(i) for i in IMAGES]))
    assert loaded.issame.tolist() == ISSAME


def test_round_trip_and_what_arcface_torch_unpickles(tmp_path):
    path = tmp_path / "lfw.bin"
    write_bin(path, IMAGES, np.array(ISSAME))
    check(path)
    with open(path, "rb") as file:
        bins, issame = pickle.load(file)  # as its load_bin does
    assert bins == IMAGES and issame == ISSAME
    assert {type(item) for item in bins} == {bytes} and {type(s) for s in issame} == {bool}


def test_every_flipped_bit_of_what_we_write_is_seen(tmp_path):
    path = tmp_path / "a.bin"
    write_bin(path, IMAGES, ISSAME)
    data = path.read_bytes()
    rng = random.Random(0)
    ends = range(8 * len(data) - 8 * 75, 8 * len(data), 3)
    for bit in [*ends, *rng.sample(range(8 * len(data)), 99)]:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DataError, match=r"a\.bin: (it is not what was written|there are 7)"):
            load_bin(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_all_protocols_and_kinds_of_content(tmp_path, protocol):
    path = tmp_path / "a.bin"
    arrays = [np.frombuffer(image, np.uint8) for image in IMAGES]
    objects = np.array(IMAGES, dtype=object)
    truths = [ISSAME, np.array(ISSAME), [np.bool_(s) for s in ISSAME], [1, 0], [1.0, 0.0]]
    truths += [np.array(ISSAME, dtype=kind) for kind in ("i8", "u1", "f4", ">f8", object)]
    truths += [[np.float32(1), np.float64(0)], tuple(ISSAME)]
    for images in (IMAGES, arrays, [bytearray(image) for image in IMAGES], objects):
        for issame in truths:
            path.write_bytes(pickle.dumps((images, issame), protocol))
            check(path)


def test_files_of_python_2(tmp_path):
    path = tmp_path / "old.bin"
    path.write_bytes(python_2_pickle(IMAGES, ISSAME))
    with pytest.raises(UnicodeDecodeError):
        pickle.loads(path.read_bytes())
    check(path)


def test_square_images_of_another_size_are_resized(tmp_path):
    large = [jpeg(seed, (224, 224)) for seed in range(2)]
    write_bin(tmp_path / "a.bin", large, [True])
    loaded = read_bin(tmp_path / "a.bin").images
    for image, data in zip(loaded, large, strict=True):
        wanted = pixels(data).reshape(112, 2, 112, 2, 3).mean((1, 3))
        assert np.abs(image - wanted).mean() < 2
    write_bin(tmp_path / "a.bin", [large[0], jpeg(0, (96, 112))], [True])
    with pytest.raises(DataError, match=r"a\.bin, image 1: the image is 96 x 112, neither"):
        read_bin(tmp_path / "a.bin")


def test_an_attack_is_not_executed(tmp_path):
    path, mark = tmp_path / "evil.bin", tmp_path / "mark"
    import builtins
    import os
    import subprocess

    calls = [
        (os.system, f"touch {mark}"),
        (subprocess.check_call, ["touch", str(mark)]),
        (builtins.exec, f"open({str(mark)!r}, 'w')"),
        (builtins.getattr, "x", "upper"),
        (np.load, str(mark)),
    ]
    for function, *args in calls:
        for content in (Attack(function, *args), (IMAGES, [Attack(function, *args)])):
            path.write_bytes(pickle.dumps(content))
            with pytest.raises(DataError, match=r"evil\.bin: the pickle asks for .*do not trust"):
                read_bin(path)
    assert not mark.exists()
    objects = np.array([b"x", None], dtype=object)
    for content, text in (
        ((objects, ISSAME), "an image must be bytes or an array of uint8, got NoneType"),
        ((IMAGES, np.array(["a", "b"])), "an array of .*no set needs"),
        ((objects.reshape(2, 1), ISSAME), "a table of objects, which no set needs"),
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=text):
            read_bin(path)
    for function, *args in calls:
        objects[1] = Attack(function, *args)
        path.write_bytes(pickle.dumps((objects, ISSAME)))
        with pytest.raises(DataError, match=r"evil\.bin: the pickle asks for .*do not trust"):
            read_bin(path)
    assert not mark.exists()
    path.write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.")
    with pytest.raises(DataError, match="codec 'rot13'"):
        read_bin(path)


def test_an_attack_leaves_nothing_behind_for_the_next_set(tmp_path):
    path = tmp_path / "evil.bin"
    change = b"N}X\x0c\x00\x00\x00__defaults__X\x01\x00\x00\x00x\x85s\x86b0"
    content = pickle.dumps((IMAGES, ISSAME), protocol=2)[2:]
    names = (b"_codecs\nencode\n", b"numpy\nndarray\n", b"builtins\nbytes\n")
    for name in names:
        path.write_bytes(b"\x80\x02c" + name + b"NN\x86b0" + content)
        with pytest.raises(DataError, match="changes what it calls: do not trust"):
            read_bin(path)
    for name in names:
        path.write_bytes(b"\x80\x02c" + name + change + content)
        with pytest.raises(DataError, match=r"has EMPTY_DICT, which no set needs: do not trust"):
            read_bin(path)
    path.write_bytes(b"\x80\x02" + content)
    assert len(read_bin(path).issame) == len(ISSAME)


def framed(content: bytes, rest: bytes, more: int = 0) -> bytes:
    """A pickle with a frame of that content, said to be so much longer, and what follows it."""
    return b"\x80\x04\x95" + (len(content) + more).to_bytes(8, "little") + content + rest


def repeated(content: bytes, number: int) -> bytes:
    """A pickle of a list that holds one thing many times, for two bytes each."""
    return b"\x80\x04](" + content + b"\x94" + b"h\x00" * number + b"e"


LAUGHS = b"\x80\x02]q\x00h\x00" + b"".join(
    b"\x86q" + bytes([i]) + b"h" + bytes([i]) for i in range(1, 60)
)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x80\x02Nr\xff\xff\xff\x0f.", "numbers its 2 steps 268435455"),
        (b"Np268435455\n.", "numbers its 1 steps 268435455"),
        (b"Np-1\n.", "numbers its 1 steps -1"),
        (b"cbuiltins\nbytearray\n(J\x00\x00\x00\x10tR.", "not a verification set"),
        (b"cbuiltins\nbytes\n(J\x00\x00\x00\x10tR.", "not a verification set"),
        (b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".", "not a verification set"),
        (b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b".", "not a verification set"),
        (b"\x80\x04\x95" + (1 << 62).to_bytes(8, "little") + b"N.", "not a verification set"),
        (b"\x80\x02}" + b")" + b"\x85" * 10**5 + b"Ns.", "EMPTY_DICT, which no set needs"),
        # In C the second argument would be of the bytes behind the frame: of 67 million places.
        (framed(b"]r\x00\x00\x00", b"\x00J\x00\x00\x040\x00."), "a frame .* ends where no opcode"),
        (framed(framed(b"N", b"", 0)[2:], b".", 11), "a frame .* ends where no opcode"),
        (LAUGHS + b".", "an image must be bytes or an array of uint8, got (tuple|list)"),
        (b"".join([repeated(b"B\xe8\x03\x00\x00" + bytes(1000), 9999), b"](I01\n",
                   b"I01\n" * 4999, b"e\x86."]), "10000 images in 41014 bytes"),
    ],
)  # fmt: skip
def test_a_small_file_takes_little_memory(tmp_path, data, text):
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(DataError, match=text) as caught:
        load_bin(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [b"a\nb", b"x" * 10**4])
def test_what_a_pickle_asks_for_is_named_on_one_short_line(tmp_path, name):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x80\x04X" + len(name).to_bytes(4, "little") + name + b"\x8c\x01y\x93.")
    with pytest.raises(DataError, match="the pickle asks for ") as caught:
        load_bin(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 150


def test_bytes_are_not_made_of_one_text_again_and_again(tmp_path):
    path = tmp_path / "a.bin"
    text = "a" * 10**4
    call = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR"
    path.write_bytes(
        b"\x80\x02X" + len(text).to_bytes(4, "little") + text.encode() + b"q\x000](" + call * 1000
        + b"e."
    )  # fmt: skip
    with pytest.raises(DataError, match="makes more of its bytes than it has"):
        load_bin(path)


def test_an_image_that_is_there_twice_is_one_object(tmp_path):
    path = tmp_path / "a.bin"
    array = np.frombuffer(IMAGES[0], np.uint8)
    path.write_bytes(pickle.dumps(([array, array, array, array], ISSAME)))
    encoded, _ = load_bin(path)
    assert encoded == [IMAGES[0]] * 4 and len({id(image) for image in encoded}) == 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (7, "not a verification set"),
        ((IMAGES, ISSAME, 1), "not a verification set"),
        ((IMAGES[:3], ISSAME), "3 images are not two for each of 2 pairs"),
        (([], []), "0 images"),
        (([*IMAGES[:3], "text"], ISSAME), "an image must be bytes"),
        ((IMAGES, [True, 2]), r"a truth value must be 0 or 1 \(false or true\), got 2"),
        ((IMAGES, [1, -1]), "a truth value must be .*, got -1"),
        ((IMAGES, [1.0, 0.5]), "a truth value must be .*, got 0.5"),
        ((IMAGES, [1.0, float("nan")]), "a truth value must be .*, got nan"),
        ((IMAGES, [True, None]), "a truth value must be .*, got NoneType"),
        ((IMAGES, np.array([[1.0], [0.0]])), "a truth value must be .*, got ndarray"),
        (([*IMAGES[:3], b"no image"], ISSAME), "image 3: .* its bytes are of no known"),
    ],
)
def test_what_is_no_set_is_refused(tmp_path, content, text):
    path = tmp_path / "a.bin"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=text) as caught:
        read_bin(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_cut_and_foreign_files(tmp_path):
    path = tmp_path / "a.bin"
    with pytest.raises(DataError, match=r"a\.bin: cannot be read: No such file"):
        read_bin(path)
    write_bin(path, IMAGES, ISSAME)
    data = path.read_bytes()
    rng = random.Random(0)
    for _ in range(60):
        path.write_bytes(data[: rng.randrange(len(data))])
        with pytest.raises(DataError, match=r"a\.bin"):
            load_bin(path)
        path.write_bytes(rng.randbytes(100))
        with pytest.raises(DataError, match=r"a\.bin"):
            load_bin(path)


def test_nothing_is_written_for_unpaired_images(tmp_path):
    with pytest.raises(DataError, match="3 images are not two for each of 2 pairs"):
        write_bin(tmp_path / "a.bin", IMAGES[:3], ISSAME)
    assert not list(tmp_path.iterdir())


def test_a_set_holds_two_images_per_pair():
    with pytest.raises(ValueError, match="images must be uint8"):
        VerificationSet(np.zeros((3, 112, 112, 3), np.uint8), np.ones(2, bool))


def test_other_image_formats_decode(tmp_path):
    image = Image.open(io.BytesIO(IMAGES[0]))
    exact = [encoded(image, kind) for kind in ("PNG", "BMP")]
    write_bin(tmp_path / "a.bin", exact, [True])
    for loaded in read_bin(tmp_path / "a.bin").images:
        np.testing.assert_array_equal(loaded, pixels(IMAGES[0]))


class TestWhatEvaluateRefusesVerifyFinds:
    """Each refusal of one is a damage of the other; and the other way round."""

    SETS = {
        "good": ([(112, 112)] * 20, [True, False] * 5, []),
        "square": ([(112, 112)] * 19 + [(96, 96)], [True, False] * 5, []),
        "rectangular": ([(112, 112), (96, 112)] * 10, [True, False] * 5, [*range(1, 20, 2)]),
        "one is not square": ([(112, 112)] * 19 + [(112, 96)], [True, False] * 5, [19]),
        "few": ([(112, 112)] * 18, [True, False, True] * 3, [None]),
        "of one kind": ([(112, 112)] * 20, [True] * 10, [None]),
        "of the other": ([(112, 112)] * 20, [0.0] * 10, [None]),
    }

    @pytest.mark.parametrize("kind", SETS)
    def test_by_kind(self, tmp_path, kind):
        sizes, issame, places = self.SETS[kind]
        path = tmp_path / "mine.bin"
        images = [jpeg(seed, size) for seed, size in enumerate(sizes)]
        path.write_bytes(pickle.dumps((images, issame)))
        assert [damage["key"] for damage in verify(path)[1]] == places
        try:
            pairs = read_bin(path)
            embeddings = pairs.images.reshape(len(pairs.images), -1)[:, ::1000].astype(float)
            verification_metrics(embeddings, pairs.issame)
        except (DataError, EvaluationError):
            assert places
        else:
            assert not places
