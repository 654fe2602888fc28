"""Images that are there twice, against loops over all pairs."""

import itertools

import numpy as np
import pytest
from helpers.record_sets import encoded, jpeg, pixels, write_records
from helpers.written_sets import shown
from PIL import Image
from scipy.fft import dctn
from torch import nn

from arcface_cakd.cli import main
from arcface_cakd.data import DataError
from arcface_cakd.data.damage import verify
from arcface_cakd.evaluation import EvaluationError, embed
from arcface_cakd.preparation.deduplication import Deduplicated, deduplicate
from arcface_cakd.preparation.near_images import pairs_above, pairs_within, perceptual_hash


def bits_of(image: np.ndarray) -> np.ndarray:
    """The hash by Pillow and SciPy."""
    weighted = Image.fromarray((image @ np.array([0.299, 0.587, 0.114])).astype(np.float32))
    small = np.asarray(weighted.resize((28, 28), Image.Resampling.BOX), dtype=np.float64)
    low = dctn(small, norm="ortho")[:16, :16].ravel()
    return low > np.median(low)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_hash_is_that_of_the_cosine_transform(seed, pool):
    image = pixels(pool[seed]) if seed else np.random.default_rng(0).integers(0, 256, (112, 112, 3))
    found = np.unpackbits(perceptual_hash(image.astype(np.uint8))).astype(bool)
    assert (found != bits_of(image)).sum() <= 2  # what stands at the median itself, in float32


@pytest.mark.parametrize(("bits", "seed"), [(0, 0), (1, 1), (6, 2), (16, 3), (24, 4)])
def test_pairs_of_hashes_are_all_found(bits, seed):
    rng = np.random.default_rng(seed)
    near = rng.integers(0, 256, (40, 32), dtype=np.uint8)
    for row in range(1, 40):  # each some bits from the row before, where two chances meet
        if rng.random() < 0.7:
            near[row] = near[row - 1]
            for bit in rng.choice(256, rng.integers(0, 2 * bits + 2), replace=False):
                near[row, bit // 8] ^= 1 << bit % 8
    near = near[rng.permutation(40)]
    plain = np.unpackbits(near, axis=1).astype(int)
    expected = {
        (i, j): int(np.abs(plain[i] - plain[j]).sum())
        for i, j in itertools.combinations(range(40), 2)
    }
    expected = {pair: number for pair, number in expected.items() if number <= bits}
    pairs, differing = pairs_within(near, bits)
    assert list(map(tuple, pairs.tolist())) == sorted(expected)
    assert differing.tolist() == [expected[pair] for pair in sorted(expected)]
    assert len(expected) > 3


def test_pairs_of_embeddings_are_all_found(monkeypatch):
    monkeypatch.setattr("arcface_cakd.preparation.near_images._ROWS", 7)
    rows = np.random.default_rng(0).normal(size=(40, 3))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    products = units @ units.T
    places = np.delete(np.arange(40), [3, 17])
    expected = [(i, j) for i, j in itertools.combinations(places, 2) if products[i, j] >= 0.9]
    pairs, cosines = pairs_above(units, places, 0.9)
    assert list(map(tuple, pairs.tolist())) == expected and len(expected) > 10
    np.testing.assert_allclose(cosines, [products[pair] for pair in expected], atol=1e-6)


def detailed(seed: int) -> bytes:
    """An image with something in each of the frequencies that are looked at."""
    coarse = np.random.default_rng(seed).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    return encoded(Image.fromarray(coarse).resize((112, 112), Image.Resampling.BICUBIC))


def again(image: bytes, quality: int = 50) -> bytes:
    return encoded(Image.fromarray(pixels(image)), "JPEG", quality=quality)


def as_png(image: bytes) -> bytes:
    return encoded(Image.fromarray(pixels(image)), "PNG")


@pytest.fixture
def doubled(tmp_path):
    """Ten images of four people, and what was added to them: (folder, key -> image)."""
    pool = [detailed(number) for number in range(10)]
    folder = tmp_path / "in"
    folder.mkdir()
    added = [
        *((pool[0], 0), (as_png(pool[1]), 0), (again(pool[2]), 1), (again(pool[3], 60), 1)),
        *((pool[4], 3), (again(pool[6]), 0), (pool[0], 0), (again(pool[2], 60), 1)),
    ]
    images = [(pool[n], label) for n, label in enumerate([0, 0, 1, 1, 2, 2, 3, 3, 3, 2])] + added
    write_records(folder, {key: (float(label), image) for key, (image, label) in enumerate(images)})
    (folder / "labels.tsv").write_text("label\tname\n0\tann\n1\tbob\n2\tcleo\n3\tdan\n")
    points = np.random.default_rng(0).uniform(30, 80, (18, 5, 2)).astype(np.float32)
    np.save(folder / "train_landmarks.npy", points)
    return folder, images


def expected_kept(images, bits, labels):
    """By brute force: an image stays unless it is alike to an earlier one of the person's."""
    hashes = [bits_of(pixels(image)) for image in images]
    kept = []
    for j in range(len(images)):
        alike = (
            labels[i] == labels[j]
            and (
                (pixels(images[i]) == pixels(images[j])).all()
                or (bits is not None and (hashes[i] != hashes[j]).sum() <= bits)
            )
            for i in kept
        )
        if not any(alike):
            kept.append(j)
    return kept


@pytest.mark.parametrize(
    ("bits", "counts"),
    [(None, Deduplicated(15, 4, 3, 0, 1, 0, 0)), (16, Deduplicated(12, 4, 3, 3, 2, 0, 0))],
)
def test_of_one_person_the_first_stays(doubled, tmp_path, bits, counts):
    folder, images = doubled
    assert deduplicate(folder, tmp_path / "out", bits=bits) == counts
    kept = expected_kept([image for image, _ in images], bits, [label for _, label in images])
    found, before = shown(tmp_path / "out"), shown(folder)
    kept.sort(key=lambda key: images[key][1])
    assert found.images == [images[key][0] for key in kept]
    assert [found.names[label] for label in found.labels] == [
        before.names[images[key][1]] for key in kept
    ]
    np.testing.assert_array_equal(found.landmarks, before.landmarks[kept])
    assert verify(tmp_path / "out")[1] == []
    header, *rows = (tmp_path / "out/duplicates.tsv").read_text().splitlines()
    assert header.split("\t")[-1] == "what"
    assert "11\tann\t1\tann\tsame pixels\tone person, left out" in rows
    assert "14\tdan\t4\tcleo\tsame pixels\ttwo people, kept" in rows
    assert len(rows) == counts.same + counts.near + counts.conflicts


@pytest.mark.parametrize(
    ("conflicts", "gone"), [("keep", []), ("first", [14, 15]), ("drop", [4, 6, 14, 15])]
)
def test_the_same_image_under_two_people(doubled, tmp_path, conflicts, gone):
    folder, images = doubled
    found = deduplicate(folder, tmp_path / "out", conflicts=conflicts)
    assert (found.conflicts, found.conflicting) == (2, len(gone))
    everyone = expected_kept([image for image, _ in images], 16, [label for _, label in images])
    kept = sorted(set(everyone) - set(gone), key=lambda key: (images[key][1], key))
    assert shown(tmp_path / "out").images == [images[key][0] for key in kept]


def test_people_of_whom_nothing_is_left_are_counted(tmp_path, pool, capsys):
    labels = [0.0, 0.0, 1.0, 1.0, 2.0]
    write_records(tmp_path, {n: (label, pool[n % 4]) for n, label in enumerate(labels)})
    (tmp_path / "labels.tsv").write_text("label\tname\n0\tann\n1\tann\n2\tbob\n")
    report = tmp_path / "alike.tsv"
    command = ["data", "dedupe", str(tmp_path), "--report", str(report), "--conflicts", "drop"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "3 images of 2 people would be left" in printed and "1 people have no image" in printed
    assert "4\tbob\t0\tann (label 0)\tsame pixels" in report.read_text()
    assert main(command[:-2]) == 0 and "no image left" not in capsys.readouterr().out


def test_embeddings_decide_where_they_are_given(doubled, tmp_path):
    """Those of a stand-in: the mean colour, as a point around grey."""
    folder, images = doubled

    def mean_colour(batch):
        return batch.reshape(len(batch), -1, 3).mean(1) - 127.5

    found = deduplicate(folder, tmp_path / "out", embed=mean_colour, cosine=0.995)
    units = np.stack([mean_colour(pixels(image)[None])[0] for image, _ in images])
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    kept = []
    for j, (image, label) in enumerate(images):
        if not any(
            images[i][1] == label
            and (units[i] @ units[j] >= 0.995 or (pixels(images[i][0]) == pixels(image)).all())
            for i in kept
        ):
            kept.append(j)
    assert found.images == len(kept)
    kept.sort(key=lambda key: images[key][1])
    assert shown(tmp_path / "out").images == [images[key][0] for key in kept]
    assert "\tcosine " in (tmp_path / "out/duplicates.tsv").read_text()
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_the_command(doubled, tmp_path, capsys):
    folder, _ = doubled
    before = sorted(folder.iterdir())
    report = tmp_path / "alike.tsv"
    assert main(["data", "dedupe", str(folder), "--report", str(report)]) == 0
    printed = capsys.readouterr().out
    assert "12 images of 4 people would be left" in printed and "6 left out" in printed
    assert sorted(folder.iterdir()) == before and len(report.read_text().splitlines()) == 9
    out = str(tmp_path / "out")
    assert main(["data", "dedupe", str(folder), out, "--exact"]) == 0
    assert "15 images of 4 people" in capsys.readouterr().out
    assert main(["data", "dedupe", str(folder), out, "--exact"]) == 1
    assert "with --force" in capsys.readouterr().err
    assert main(["data", "dedupe", str(folder), "--bits", "25"]) == 1
    assert "0 to 24 bits, not 25" in capsys.readouterr().err
    assert main(["data", "dedupe", str(folder), "--report", str(report)]) == 0  # a former one
    before = (folder / "train.rec").read_bytes()
    for other in (folder / "train.rec", tmp_path):
        assert main(["data", "dedupe", str(folder), "--report", str(other)]) == 1
        assert f"--report {other}: " in capsys.readouterr().err
    assert (folder / "train.rec").read_bytes() == before


def test_a_damaged_image_is_named(tmp_path, capsys):
    write_records(tmp_path, {0: (0.0, jpeg(0)), 1: (1.0, b"no image")})
    with pytest.raises(DataError, match=r"train\.rec, key 1: .*data verify' names all such"):
        deduplicate(tmp_path)


@pytest.mark.parametrize(
    ("value", "says"),
    [(np.nan, "6 of 6 embeddings are not finite"), (3.0, "all 6 embeddings are the same")],
)
def test_a_model_that_says_nothing_is_refused(make_set, tmp_path, value, says):
    folder = make_set("in", [0, 0, 1, 1, 2, 2])
    with pytest.raises(EvaluationError, match=says):
        deduplicate(folder, tmp_path / "out", embed=lambda images: np.full((len(images), 4), value))
    assert not (tmp_path / "out").exists()


def test_a_models_embeddings_decide(doubled, tmp_path, capsys, monkeypatch):
    folder, images = doubled
    model = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(147, 16)).eval()
    opened = []
    monkeypatch.setattr(
        "arcface_cakd.cli.evaluate.open_model",
        lambda args: opened.append(args) or (model, "", None),
    )
    command = ["data", "dedupe", str(folder), str(tmp_path / "out"), "--model", "model.pt"]
    assert main([*command, "--cosine", "0.9999"]) == 0
    assert opened[0].model == "model.pt" and opened[0].pixels is None
    units = embed(model, np.stack([pixels(image) for image, _ in images]))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    kept: list[int] = []
    for j, (_, label) in enumerate(images):
        if not any(images[i][1] == label and units[i] @ units[j] >= 0.9999 for i in kept):
            kept.append(j)
    assert f": {len(kept)} images of 4 people" in capsys.readouterr().out and 4 < len(kept) < 16
