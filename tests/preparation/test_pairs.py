"""Verification sets drawn and listed, against brute force over the pairs that came out."""

import errno
import itertools
import pickle

import numpy as np
import pytest
from helpers.record_sets import jpeg

from arcface_cakd.cli import main
from arcface_cakd.data import DataError
from arcface_cakd.preparation import pairing
from arcface_cakd.preparation.pair_drawing import draw_pairs
from arcface_cakd.preparation.pair_images import FolderImages
from arcface_cakd.preparation.pair_lists import ListedPair, read_pair_list


def load(path):
    with open(path, "rb") as file:
        return pickle.load(file)  # as arcface_torch's load_bin does


@pytest.mark.parametrize(
    ("people", "most", "pairs", "seed"),
    [(40, 6, 200, 0), (23, 9, 60, 1), (300, 2, 500, 2), (120, 12, 2000, 3), (20, 3, 20, 4)],
)
def test_drawn_pairs_are_what_the_protocol_needs(people, most, pairs, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.permutation(people) * 7, rng.integers(2, most + 1, people))
    labels = labels[rng.permutation(len(labels))]
    places, issame = draw_pairs(labels, pairs, seed)
    assert places.shape == (pairs, 2) and issame.shape == (pairs,)
    assert ((labels[places[:, 0]] == labels[places[:, 1]]) == issame).all()
    assert (places[:, 0] != places[:, 1]).all()
    assert len({frozenset(pair) for pair in places.tolist()}) == pairs
    folds = np.split(labels[places], 10)
    assert all(np.array_equal(half, issame[: pairs // 10]) for half in np.split(issame, 10))
    for one, other in itertools.combinations(folds, 2):
        assert not set(one.ravel().tolist()) & set(other.ravel().tolist())
    again, _ = draw_pairs(labels, pairs, seed)
    assert (again == places).all()
    assert (draw_pairs(labels, pairs, seed + 1)[0] != places).any()


def test_people_of_many_images_do_not_take_the_set_over():
    labels = np.repeat(np.arange(40), [50] * 10 + [2] * 30)
    places, issame = draw_pairs(labels, 160, 0)
    same = np.bincount(labels[places[issame, 0]], minlength=40)
    # 8 a fold of 4 people: 1 of each who has one pair, and 5 of the one who has more.
    assert sorted(same.tolist()) == [1] * 30 + [5] * 10


def test_all_pairs_can_be_asked_for_and_no_more():
    labels = np.repeat(np.arange(20), 2)  # two people a fold: 2 pairs of one, 4 of two
    places, _ = draw_pairs(labels, 40, 0)
    assert len({frozenset(pair) for pair in places.tolist()}) == 40
    with pytest.raises(DataError, match="20 people with 40 images make at most 40 such pairs"):
        draw_pairs(labels, 60, 0)
    with pytest.raises(DataError, match="take a set of more people"):
        draw_pairs(np.arange(100), 20, 0)
    with pytest.raises(DataError, match="30 pairs: it must be a multiple of 20"):
        draw_pairs(labels, 30, 0)


def test_drawn_from_records(make_set, tmp_path, pool, capsys):
    names = {n: f"person {n}" for n in range(20)}
    folder = make_set("in", [n // 4 for n in range(80)], names=names)
    out = tmp_path / "mine.bin"
    command = ["data", "pairs", str(folder), str(out), "--pairs", "40", "--seed", "2"]
    assert main(command) == 0
    assert "40 pairs, 20 of one person and 20 of two" in capsys.readouterr().out
    encoded, issame = load(out)
    shown = [pool.index(image) // 4 for image in encoded]
    assert issame == [a == b for a, b in zip(shown[0::2], shown[1::2], strict=True)]
    people = [line.split("\t") for line in (tmp_path / "mine_people.tsv").read_text().splitlines()]
    assert people == [[names[a], names[b]] for a, b in zip(shown[0::2], shown[1::2], strict=True)]
    assert main(command) == 1
    assert "replace it with --force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0 and load(out) == (encoded, issame)
    assert main([*command[:3], "mine.pkl", *command[4:]]) == 1
    assert "must end in .bin" in capsys.readouterr().err


def test_who_is_on_the_pairs_is_replaced_by_force_alone(make_set, tmp_path, capsys, monkeypatch):
    folder = make_set("in", [n // 4 for n in range(80)])
    out, who = tmp_path / "mine.bin", tmp_path / "mine_people.tsv"
    who.write_text("of mine")
    command = ["data", "pairs", str(folder), str(out), "--pairs", "20"]
    assert main(command) == 1
    assert f"{who}: is there: choose another name, or replace it with" in capsys.readouterr().err
    assert who.read_text() == "of mine" and not out.exists()
    with monkeypatch.context() as patched:

        def full(path, encoded, issame):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        patched.setattr(pairing, "write_bin", full)
        assert main([*command, "--force"]) == 1
    assert f"{out}: No space left" in capsys.readouterr().err
    assert who.read_text() == "of mine" and not out.exists()
    assert main([*command, "--force"]) == 0 and len(who.read_text().splitlines()) == 20


@pytest.fixture
def crops(tmp_path):
    """Four people of three images each, as LFW names them."""
    for person, image in itertools.product(range(4), range(1, 4)):
        path = tmp_path / f"crops/P_{person}/P_{person}_{image:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(10 * person + image))
    return tmp_path / "crops"


def test_drawn_from_folders_without_loose_images(tmp_path, capsys):
    shown = {}
    for person, image in itertools.product(range(20), range(2)):
        path = tmp_path / f"crops/{person:02d}/{image}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(2 * person + image))
        shown[jpeg(2 * person + image)] = f"{person:02d}"
    (tmp_path / "crops/00000.jpg").write_bytes(jpeg(99))
    out = tmp_path / "mine.bin"
    assert main(["data", "pairs", str(tmp_path / "crops"), str(out), "--pairs", "40"]) == 0
    encoded, issame = load(out)
    names = [shown[image] for image in encoded]
    couples = [list(couple) for couple in zip(names[0::2], names[1::2], strict=True)]
    assert issame == [a == b for a, b in couples]
    lines = (tmp_path / "mine_people.tsv").read_text().splitlines()
    assert [line.split("\t") for line in lines] == couples


def test_what_links_lead_to_again_is_said_to_be_left_out(crops, caplog):
    (crops / "Q").symlink_to(crops / "P_0")
    assert len(FolderImages(crops).labels()) == 12
    assert "left out: 3 images in folders that links lead to a second time (Q/" in caplog.text


SAME = [(person, one, other) for person in range(4) for one, other in ((1, 2), (2, 3))]
OTHER = [(person, 1, (person + 1) % 4, 3) for person in range(4)]
PATH = "P_{0}/P_{0}_{1:04d}.jpg".format


def lfw_list():
    yield "1\t8"
    yield from (f"P_{p}\t{a}\t{b}" for p, a, b in SAME)
    yield from (f"P_{p}\t{a}\tP_{q}\t{b}" for p, a, q, b in OTHER)


def path_list(truth):
    yield "# two images a line"
    for p, a, b in SAME:
        yield f"{PATH(p, a)} {PATH(p, b)}" + " 1" * truth
    for p, a, q, b in OTHER:
        yield f"{PATH(p, a)},{PATH(q, b).replace('.jpg', '.png')}" + ",0" * truth


@pytest.mark.parametrize("lines", [lfw_list(), path_list(True), path_list(False)])
def test_listed_pairs_come_in_the_order_of_the_list(crops, tmp_path, lines, capsys, caplog):
    listed, out = tmp_path / "pairs.txt", tmp_path / "mine.bin"
    listed.write_text("\n".join(lines) + "\n")
    assert main(["data", "pairs", str(crops), str(out), "--list", str(listed)]) == 0
    assert "12 pairs, 8 of one person and 4 of two" in capsys.readouterr().out
    encoded, issame = load(out)
    expected = [jpeg(10 * p + i) for p, a, b in SAME for i in (a, b)]
    expected += [jpeg(10 * p + i) for pa, a, q, b in OTHER for p, i in ((pa, a), (q, b))]
    assert encoded == expected and issame == [True] * 8 + [False] * 4
    people = [line.split("\t") for line in (tmp_path / "mine_people.tsv").read_text().splitlines()]
    assert people[0] == ["P_0", "P_0"] and people[11] == ["P_3", "P_0"]
    assert "4 of 4 people (P_0 first) are in more than one of 10 folds" in caplog.text


def test_lists_name_photographs_of_which_these_are_the_crops(crops, tmp_path, caplog):
    """``data align`` makes ``1.png.jpg`` of ``1.png``; other tools make ``1.jpg`` of it."""
    for path in crops.glob("P_[01]/*"):
        path.rename(path.with_suffix(".png.jpg"))
    listed, out = tmp_path / "pairs.txt", tmp_path / "mine.bin"
    command = ["data", "pairs", str(crops), str(out), "--force", "--list", str(listed)]
    made = []
    for lines in (lfw_list(), (line.replace(".jpg", ".png") for line in path_list(True))):
        assert "is taken for it" not in caplog.text
        listed.write_text("\n".join(lines))
        assert main(command) == 0
        made.append(load(out))
    assert made[0] == made[1] and made[0][0][:2] == [jpeg(1), jpeg(2)]
    (said,) = [message for message in caplog.messages if "is taken for it" in message]
    assert f"no P_2/P_2_0001.png: {crops / PATH(2, 1)} is taken for it" in said


def test_a_name_that_may_be_two_images_is_neither(crops, tmp_path, caplog):
    (crops / "P_0/P_0_0001.png.jpg").write_bytes(jpeg(99))
    (crops / "P_1/P_1_0001.png").write_bytes(jpeg(98))
    listed, out = tmp_path / "pairs.txt", tmp_path / "mine.bin"
    command = ["data", "pairs", str(crops), str(out), "--list", str(listed)]
    listed.write_text("\n".join([*lfw_list(), "/ . 1", "P_3/..jpg P_3/ 0"]))
    assert main(command) == 1
    said = [message.split("line ")[1] for message in caplog.messages]
    assert [int(text.split(":")[0]) for text in said] == [2, 4, 10, 11, 14, 15]
    assert said[-2:] == ["14: no image /", "15: no image P_3/..jpg"]
    for text, one, other in (
        (said[0], "P_0/P_0_0001.jpg", "P_0/P_0_0001.png.jpg"),
        (said[1], "P_1/P_1_0001.jpg", "P_1/P_1_0001.png"),
    ):
        assert f" {one[:-4]} may be {crops / one} or {crops / other}: say which by" in text
    # As it says.
    lines = [f"{PATH(p, a)} {PATH(p, b)} 1" for p, a, b in SAME]
    lines += [f"{PATH(p, a)} {PATH(q, b)} 0" for p, a, q, b in OTHER]
    listed.write_text("\n".join(lines))
    assert main(command) == 0 and load(out)[0][0] == jpeg(1)


def test_pairs_that_cannot_be_made_are_all_named(crops, tmp_path, caplog, capsys):
    (crops / "P_2/P_2_0002.jpg").write_bytes(b"no image")
    (crops / "P_3/P_3_0003.jpg").unlink()
    listed, out = tmp_path / "pairs.txt", tmp_path / "mine.bin"
    # Ten that are whole: the protocol's least.
    more = "P_0\t1\t3\nP_1\t1\t3\nP_0\t2\tP_1\t2\nP_0\t3\tP_1\t1\n"
    listed.write_text("\n".join(lfw_list()) + "\n" + more)
    command = ["data", "pairs", str(crops), str(out), "--list", str(listed)]
    assert main(command) == 1 and not out.exists()
    assert "(4 of 16 pairs cannot be made, each named above)" in capsys.readouterr().err
    lines = [int(message.split("line ")[1].split(":")[0]) for message in caplog.messages]
    assert lines == [6, 7, 9, 12]
    assert main([*command, "--skip-bad"]) == 0
    assert "12 pairs, 7 of one person and 5 of two; 4 left out" in capsys.readouterr().out


def test_a_list_that_contradicts_the_folders_is_taken_at_its_word(crops, tmp_path, caplog):
    listed, out = tmp_path / "pairs.txt", tmp_path / "mine.bin"
    lines = [*path_list(True)]
    lines[1] = lines[1][:-1] + "0"
    listed.write_text("\n".join(lines))
    assert main(["data", "pairs", str(crops), str(out), "--list", str(listed)]) == 0
    assert load(out)[1][:2] == [False, True]
    assert "for two people, and they are of P_0 and P_0" in caplog.text
    assert not (tmp_path / "mine_people.tsv").exists()


def test_a_person_is_the_top_folder_with_all_below_it(tmp_path, caplog):
    """By a list that leaves the truth to the folders, and drawn: as everything else takes them."""
    for person, image in itertools.product(range(20), range(2)):
        path = tmp_path / f"crops/q{person:02d}/v{image}/0.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(2 * person + image))
    listed, out, who = (tmp_path / name for name in ("pairs.txt", "mine.bin", "mine_people.tsv"))
    same = [f"q{n:02d}/v0/0.jpg q{n:02d}/v1/0.jpg\n" for n in range(5)]
    other = [f"q{n:02d}/v0/0.jpg q{n + 1:02d}/v0/0.jpg\n" for n in range(5)]
    listed.write_text("".join(same + other))
    command = ["data", "pairs", str(tmp_path / "crops"), str(out), "--force"]
    assert main([*command, "--list", str(listed)]) == 0
    assert load(out)[1] == [True] * 5 + [False] * 5
    assert who.read_text().splitlines()[4:6] == ["q04\tq04", "q00\tq01"]
    caplog.clear()
    assert main([*command, "--pairs", "20"]) == 0 and not caplog.messages
    couples = [line.split("\t") for line in who.read_text().splitlines()]
    assert [one == other for one, other in couples] == load(out)[1]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/1.heic", "a/1.jpg"),  # which no reader here knows
        ("a/1.jp2", "a/1.jpg"),
        ("a/J.R._Smith_0001", "a/J.R._Smith_0001.jpg"),
        ("a/J.R._Smith_0002", None),  # and not a/J.R.jpg
        ("a/3", "a/3.dat"),  # an image by its content
    ],
)
def test_suffixes_of_other_kinds(tmp_path, name, found):
    (tmp_path / "a").mkdir()
    for number, file in enumerate(("1.jpg", "J.R._Smith_0001.jpg", "J.R.jpg", "3.dat")):
        (tmp_path / "a" / file).write_bytes(jpeg(number))
    images = FolderImages(tmp_path)
    assert [images.describe(place) for place in images.find(name)] == (
        [str(tmp_path / found)] if found else []
    )


@pytest.mark.parametrize("told", [True, False])
def test_people_s_folders_may_be_further_down(crops, tmp_path, told):
    (tmp_path / "set").mkdir()
    crops.rename(tmp_path / "set/train")
    listed, out = tmp_path / "pairs.txt", tmp_path / "mine.bin"
    lines = [f"train/{name}" for name in path_list(True)][1:]
    lines = [line.replace(" P_", " train/P_").replace(",P_", ",train/P_") for line in lines]
    command = ["data", "pairs", str(tmp_path / "set"), str(out), "--list", str(listed)]
    listed.write_text("\n".join(line if told else line[:-2] for line in lines))
    assert main(command) == 0 and load(out)[1] == [True] * 8 + [False] * 4
    couples = (tmp_path / "mine_people.tsv").read_text().splitlines()
    assert [one == other for one, other in (couple.split("\t") for couple in couples)] == load(out)[
        1
    ]
    assert all(couple.startswith("P_") for couple in couples)


@pytest.mark.parametrize("drawn", [True, False])
def test_two_labels_of_one_name_are_two_people(make_set, tmp_path, drawn, caplog):
    names = {n: "John Smith" if n < 2 else f"p{n}" for n in range(20)}
    folder = make_set("in", [n // 4 for n in range(80)], names=names)
    listed, out, who = (tmp_path / name for name in ("pairs.txt", "mine.bin", "mine_people.tsv"))
    listed.write_text("".join(f"{n} {n + 1 if n % 2 else n + 4}\n" for n in range(10)))
    how = ["--pairs", "60"] if drawn else ["--list", str(listed)]
    assert main(["data", "pairs", str(folder), str(out), *how]) == 0
    people = [line.split("\t") for line in who.read_text().splitlines()]
    assert [one == other for one, other in people] == load(out)[1]
    assert "1 name(s) stand for several labels, John Smith first" in caplog.text
    if not drawn:
        assert load(out)[1] == [n in (1, 5, 9) for n in range(10)]
        assert people[0] == ["John Smith (label 0)", "John Smith (label 1)"]


def test_lists_and_folders_may_write_a_letter_in_two_forms(tmp_path):
    (tmp_path / "Jose\u0301").mkdir()
    (tmp_path / "Jose\u0301/1.jpg").write_bytes(jpeg(1))
    (tmp_path / "Andr\u00e9").mkdir()
    (tmp_path / "Andr\u00e9/2.png").write_bytes(jpeg(2))
    images = FolderImages(tmp_path)
    found = [
        images.describe(place)
        for name in ("Jos\u00e9/1.jpg", "Jos\u00e9/1", "Andre\u0301/2.png", "Andre\u0301/2.jpg")
        for place in images.find(name)
    ]
    one, other = tmp_path / "Jose\u0301/1.jpg", tmp_path / "Andr\u00e9/2.png"
    assert found == [str(one), str(one), str(other), str(other)]


def test_records_are_named_by_their_keys(make_set, tmp_path, pool):
    folder = make_set("in", [0, 0, 1, 1, 2, 2])
    listed, out = tmp_path / "pairs.txt", tmp_path / "mine.bin"
    couples = [(0, 1), (2, 3), (4, 5), (0, 2), (1, 3), (2, 4), (3, 5), (0, 4), (1, 5), (0, 3)]
    listed.write_text("".join(f"{a} {b}\n" for a, b in couples))
    assert main(["data", "pairs", str(folder), str(out), "--list", str(listed)]) == 0
    encoded, issame = load(out)
    assert encoded == [pool[key] for couple in couples for key in couple]
    assert issame == [True] * 3 + [False] * 7
    assert (tmp_path / "mine_people.tsv").read_text().startswith("0\t0\n1\t1\n2\t2\n0\t1\n")


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a.jpg b.jpg 1", (("a.jpg", "b.jpg"), True)),
        ("0,a b.jpg,c d.jpg", (("a b.jpg", "c d.jpg"), False)),
        ("a.jpg\tb.jpg\tdiff", (("a.jpg", "b.jpg"), False)),
        ("7 9", (("7", "9"), None)),
        ("7 9 1", (("7", "9"), True)),
        ("Ann_Lee 3 12", (("Ann_Lee/Ann_Lee_0003", "Ann_Lee/Ann_Lee_0012"), True)),
        ("J.R._Lee 1 2", (("J.R._Lee/J.R._Lee_0001", "J.R._Lee/J.R._Lee_0002"), True)),
        ("A 1 B 2", (("A/A_0001", "B/B_0002"), False)),
    ],
)
def test_a_line_of_a_list(tmp_path, text, pair):
    (tmp_path / "pairs.txt").write_text(f"{text}\n")
    assert read_pair_list(tmp_path / "pairs.txt") == [ListedPair(1, *pair)]


@pytest.mark.parametrize("text", ["a.jpg", "a.jpg b.jpg 2", "a b c d", "a b c d e"])
def test_a_line_that_is_no_pair_is_named(tmp_path, text):
    (tmp_path / "pairs.txt").write_text(f"a.jpg b.jpg 1\n\n{text}\n")
    with pytest.raises(DataError, match="line 3: must be two images and 1 or 0"):
        read_pair_list(tmp_path / "pairs.txt")
