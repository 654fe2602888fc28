"""The builder of CFP's sets, but for what needs photographs: detection and the teacher."""

import itertools

import numpy as np
import pytest
from helpers.engine_runs import png
from helpers.repositories import committed


@pytest.fixture(scope="module")
def builder():
    import cfp_faces

    return cfp_faces


def crops_of(builder, people, frontal, profile):
    """So many crops of each of the people, by name, each of one colour."""
    names = [
        f"{person:03d}/{kind}/{number:02d}.jpg"
        for person in people
        for kind, count in (("frontal", frontal), ("profile", profile))
        for number in range(1, count + 1)
    ]
    landmarks = np.zeros((5, 2), dtype=np.float32)
    return {
        name: builder.Crop(name, png(np.full((112, 112, 3), k % 256, dtype=np.uint8)), landmarks)
        for k, name in enumerate(names)
    }


def listed_of(people, kinds, same, different, seed):
    """A list of pairs as a protocol has it: some twice, once in the other order."""
    random = np.random.default_rng(seed)
    counts = {"frontal": 4, "profile": 3}
    images = {
        person: [
            [f"{person:03d}/{kind}/{n:02d}.jpg" for n in range(1, counts[kind] + 1)]
            for kind in kinds
        ]
        for person in people
    }
    every = {True: [], False: []}
    for one, other in itertools.product(people, people):
        for pair in itertools.product(images[one][0], images[other][1]):
            if pair[0] != pair[1] and pair[::-1] not in every[one == other]:
                every[one == other].append(pair)
    pairs = []
    for count, kind in ((same, True), (different, False)):
        chosen = random.permutation(len(every[kind]))[:count]
        pairs += [(*every[kind][k], kind) for k in chosen]
    return [*pairs, pairs[0], (pairs[-1][1], pairs[-1][0], False)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kinds", [("frontal", "frontal"), ("frontal", "profile")])
def test_pairs_are_the_protocols_and_as_many_of_two_people(builder, kinds, seed):
    people = range(1, 13)
    crops = crops_of(builder, people, 4, 3)
    listed = listed_of(people, kinds, 52, 33, seed)
    if kinds[0] != kinds[1]:
        listed = listed[:-1]  # the other order would be another kind of pair
    pairs = builder.pairs_of(listed, crops, kinds)
    assert len(pairs) == 100
    same, different = pairs[0::2], pairs[1::2]
    assert all(p.same and p.one.person == p.other.person for p in same)
    assert all(not p.same and p.one.person != p.other.person for p in different)
    names = [(p.one.name, p.other.name) for p in pairs]
    assert len({frozenset(pair) for pair in names}) == 100
    assert all((one[4:11], other[4:11]) == kinds for one, other in names)
    order = list(dict.fromkeys(listed))
    assert names[0::2] == [row[:2] for row in order if row[2]][:50]
    assert names[1::2][:33] == [row[:2] for row in order if not row[2]][:33]
    assert builder.pairs_of(listed, crops, kinds) == pairs


def test_pairs_of_an_image_that_is_left_out_are_gone(builder):
    people, kinds = range(1, 13), ("frontal", "profile")
    crops = crops_of(builder, people, 4, 3)
    listed = listed_of(people, kinds, 60, 70, 5)[:-1]
    fewer = {k: c for k, c in crops.items() if c.person != "003" and k != "005/frontal/02.jpg"}
    names = [(p.one.name, p.other.name) for p in builder.pairs_of(listed, fewer, kinds)]
    assert len(names) >= 60
    assert {image for pair in names for image in pair} <= fewer.keys()
    kept = {row[:2] for row in listed if row[0] in fewer and row[1] in fewer}
    assert set(names) <= kept  # there are more of two people than of one: none is drawn


def test_names_are_matched_without_accents_and_spaces(builder):
    people = {"001": "50 Cent", "002": "Penélope Cruz", "003": "J.K. Rowling", "004": "Nobody"}
    names = {"Penelope_Cruz", "JK_Rowling", "Nobody_Else", "50_Cent"}
    assert builder.in_lfw(people, names) == ["001", "002", "003"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A repository as the clone of CFP is laid out, and its commit."""
    root = tmp_path_factory.mktemp("cfp")
    data, splits = root / "cfp-dataset" / "Data", root / "cfp-dataset" / "Protocol"
    for part, person in (("train", "002"), ("test", "001")):
        for name in ("frontal/01.jpg", "frontal/02.jpg", "profile/01.jpg"):
            path = data / "Images" / part / person / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{person}/{name}".encode())
    (data / "Images" / "train" / "list.txt").write_text("no image\n")
    for fold in range(1, 11):
        for name in ("FF", "FP"):
            folder = splits / "Split" / name / f"{fold:02d}"
            folder.mkdir(parents=True)
            (folder / "same.txt").write_text("1,2\n" if name == "FF" else "3,2\n")
            (folder / "diff.txt").write_text("1,4\n" if name == "FF" else "2,2")
    rows = [f"00{person}/frontal/0{n}.jpg" for person in (1, 2) for n in (1, 2)]
    lines = [f"{k} ../Data/Images/{row}\n" for k, row in enumerate(rows, start=1)]
    (splits / "Pair_list_F.txt").write_text("".join(lines))
    lines = [f"{k} ../Data/Images/00{k}/profile/01.jpg\n" for k in (1, 2)]
    (splits / "Pair_list_P.txt").write_text("".join(lines))
    return committed(root)


def test_what_is_read_from_a_clone(builder, clone, monkeypatch):
    root, commit = clone
    monkeypatch.setattr(builder, "CFP_COMMIT", commit)
    images = builder.images_of(root)
    assert list(images) == sorted(images)
    assert images == {
        name: name.encode()
        for name in (
            f"{person}/{file}"
            for person in ("001", "002")
            for file in ("frontal/01.jpg", "frontal/02.jpg", "profile/01.jpg")
        )
    }
    frontal = builder.protocol(root, "cfp_ff", builder.SETS["cfp_ff"])
    pair = ("001/frontal/01.jpg", "001/frontal/02.jpg", True)
    assert frontal == [pair, ("001/frontal/01.jpg", "002/frontal/02.jpg", False)] * 10
    profile = builder.protocol(root, "cfp_fp", builder.SETS["cfp_fp"])
    pair = ("002/frontal/01.jpg", "002/profile/01.jpg", True)
    assert profile == [pair, ("001/frontal/02.jpg", "002/profile/01.jpg", False)] * 10


def test_who_is_in_the_real_set_is_known_by_the_face(builder, tmp_path, monkeypatch):
    """In whatever part, and told by the image that is most alike."""
    from real_faces import Crop, Pair, write_pairs, write_training_set

    numbers = itertools.count(1)

    def crop(name):
        jpeg = png(np.full((112, 112, 3), next(numbers), dtype=np.uint8))
        return Crop(name, jpeg, np.zeros((5, 2), dtype=np.float32))

    train = {person: [crop(f"{person}/{n}.jpg") for n in (1, 2)] for person in ("Ann", "Bob")}
    write_training_set(tmp_path, train)
    held = {}
    for part in builder.TENTHS:
        held[part] = [crop(f"{part}_{n}/1.jpg") for n in range(4)]
        one, two, three, four = held[part]
        write_pairs(tmp_path, part, [Pair(one, two, False), Pair(three, four, False)])
    crops = {
        name: crop(name)
        for name in (f"00{k}/frontal/0{n}.jpg" for k in range(1, 6) for n in (1, 2))
    }
    axes = {
        c.jpeg: k
        for k, c in enumerate(
            [*train["Ann"], *train["Bob"], *itertools.chain(*held.values()), *crops.values()]
        )
    }

    def embed(weights, parts):
        """Every image apart, but for those that are told here: (image, whose it looks like)."""
        rows = np.eye(len(axes))
        for name, like, cosine in (
            ("001/frontal/02.jpg", train["Bob"][1].jpeg, 0.6),
            ("001/frontal/01.jpg", train["Bob"][0].jpeg, 0.8),
            ("003/frontal/01.jpg", held["reserve"][2].jpeg, 0.55),
            ("004/frontal/01.jpg", held["dev"][0].jpeg, 0.45),
        ):
            row = rows[axes[crops[name].jpeg]]
            row *= np.sqrt(1 - cosine**2)
            row[axes[like]] = cosine
        return {part: rows[[axes[image] for image in own]] for part, own in parts.items()}

    monkeypatch.setattr(builder, "embed_crops", embed)
    assert builder.with_faces_of(tmp_path, crops) == {
        "001": "train, label 1, 0.800",
        "003": "reserve, reserve_2, 0.550",
    }


def test_a_set_says_itself_which_images_make_a_pair():
    """Of a frontal face and a profile no pairs are added: two frontal ones are another task."""
    from grid import SIZES
    from records import RUNS, read_people

    real = SIZES["cpu"]["real"]
    for name in real.report:
        people, listed, _ = read_people(RUNS, "real", name)
        added = np.count_nonzero(~people.issame) / np.count_nonzero(people.issame)
        assert added == (1 if name == "cfp_fp" else real.negatives), name
        assert (len(people.issame) == listed) == (name == "cfp_fp")
