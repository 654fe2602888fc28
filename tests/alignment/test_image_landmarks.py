"""URFM by the landmarks of each image: as by a template that is that image's."""

import copy

import numpy as np
import pytest
import torch
from helpers.face_distances import LANDMARKS, bilinear, brute_force, places
from helpers.urfm_forms import LEARNED, OURS

from arcface_cakd.alignment import URFM, PIFSettings
from arcface_cakd.alignment import geometry as g
from arcface_cakd.config import ConfigError
from arcface_cakd.features import FaceFeatures
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, mirror

GRIDS, EXTENTS = ((7, 7), (4, 4)), (112, 108)
DEALT = {7: (2, 2, 1, 1, 1), 12: (3, 3, 2, 2, 2)}  # centres at each landmark
MAP = np.linspace(0, 1, 20).reshape(4, 5) ** 2


def faces(count, seed=0):
    """Landmarks (B, 5, 2) float64 of faces that are turned and moved."""
    generator = torch.Generator().manual_seed(seed)
    noise = 6 * torch.randn((count, 5, 2), generator=generator, dtype=torch.float64)
    return torch.tensor(ARCFACE_TEMPLATE, dtype=torch.float64) + noise


def batch(count, dtype=torch.float64, prompts=2):
    student = torch.randn(count, 49, 5, dtype=dtype)
    teacher = torch.randn(count, 16, 6, dtype=dtype)
    return (
        FaceFeatures(None, student, GRIDS[0]),
        FaceFeatures(None, teacher, GRIDS[1], torch.randn(count, prompts, 6, dtype=dtype)),
    )


def build(seed=0, **settings):
    torch.manual_seed(seed)
    given = {"num_centers": 9, "dim": 8, "num_heads": 2, "landmarks": "image"}
    given = {**given, **LEARNED, **settings}
    return URFM(5, GRIDS[0], 6, GRIDS[1], *EXTENTS, **given).double()


def image(features, number):
    one = slice(number, number + 1)
    prompts = None if features.prompts is None else features.prompts[one]
    return FaceFeatures(None, features.tokens[one], features.grid, prompts)


SETTINGS = [
    {},
    {**OURS, "dim": None},
    {"anchor": "landmarks", "face_distance": "saliency"},
    {"face_distance": None},
    {"anchor": "center", "face_weight": 2.5},
    {"anchor": "center", "face_distance": None, "placing": "landmarks", "num_centers": 12},
    {"placing": "landmarks", "num_centers": 7, "face_distance": "saliency"},
    {"position": "query", "anchor": "landmarks"},
    {"face_distance": "saliency", "saliency_map": "map.npy"},
    {"shared_centers": True, "stop_gradient": False, "shared_msa": False},
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("settings", SETTINGS)
def test_each_image_is_mapped_by_the_distances_on_its_own_face(
    settings, seed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    np.save("map.npy", MAP)
    saliency = (lambda p: bilinear(MAP, p)) if "saliency_map" in settings else None
    kind, weight = settings.get("face_distance", "relative"), settings.get("face_weight", 1.0)
    urfm = build(seed, **settings).eval()
    with torch.no_grad():
        for parameter in urfm.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    both, landmarks = batch(3), faces(3, seed)
    found = urfm(*both, landmarks)
    (found.student.attended.square().sum() + found.anchored.square().sum()).backward()

    gradients = dict.fromkeys(dict(urfm.named_parameters()), 0.0)
    for number, points in enumerate(landmarks):
        alone = copy.deepcopy(urfm)
        alone.zero_grad()
        alone.by_image = False
        at = [tuple(p) for p in points.tolist()]
        anchors = {"nose": at[2:3], "center": [(55.5, 55.5)], "landmarks": at}
        anchors = anchors[settings.get("anchor", "nose")]
        centers = places(3, 3)
        if settings.get("placing") == "landmarks":
            template = g.center_places(urfm.num_centers, "landmarks").numpy()
            owner = np.repeat(range(5), DEALT[urfm.num_centers])
            shift = (np.array(at) - LANDMARKS)[owner]  # every centre goes with its landmark
            centers = [tuple(place) for place in template + shift]

        def distance(to, centers=centers, at=at):
            return torch.tensor(brute_force(centers, to, kind, weight, saliency, at))

        for mapping, grid, extent in zip(
            (alone.student, alone.teacher), GRIDS, EXTENTS, strict=True
        ):
            mapping.move(distance(anchors), distance(places(*grid, extent)), restart_from=None)
        one = alone(*(image(features, number) for features in both))
        for side in ("student", "teacher"):
            for part in ("h", "attended", "attention", "lookup"):
                torch.testing.assert_close(
                    getattr(getattr(found, side), part)[number : number + 1],
                    getattr(getattr(one, side), part),
                    rtol=1e-9,
                    atol=1e-12,
                )
        (one.student.attended.square().sum() + one.anchored.square().sum()).backward()
        for name, parameter in alone.named_parameters():
            if parameter.grad is not None:
                gradients[name] = gradients[name] + parameter.grad
    for name, parameter in urfm.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("settings", SETTINGS[:-2])
def test_faces_like_the_template_are_mapped_as_by_the_template(settings):
    by_image, by_template = build(**settings), build(**settings, landmarks="template")
    both = batch(3)
    landmarks = torch.tensor(ARCFACE_TEMPLATE)[None].expand(3, -1, -1)
    a, b = by_image(*both, landmarks), by_template(*both)
    assert torch.equal(a.student.attended, b.student.attended)
    assert torch.equal(a.teacher.lookup, b.teacher.lookup)


def test_the_landmarks_of_one_image_change_no_other():
    urfm, both, landmarks = build().eval(), batch(4), faces(4)
    moved = landmarks.clone()
    moved[2] += 9.0
    before, after = urfm(*both, landmarks).student.h, urfm(*both, moved).student.h
    same = (before == after).flatten(1).all(1)
    assert same.tolist() == [True, True, False, True]


def test_a_template_ignores_them_and_evaluation_does_without():
    both = batch(3)
    urfm = build(landmarks="template")
    assert torch.equal(urfm(*both, faces(3)).student.h, urfm(*both).student.h)
    urfm = build().eval()
    template = torch.tensor(ARCFACE_TEMPLATE)[None].expand(3, -1, -1)
    assert torch.equal(urfm(*both, template).student.h, urfm(*both).student.h)


def test_training_asks_for_them():
    with pytest.raises(ConfigError, match=r'urfm.landmarks="image" needs .* set .*"template"'):
        build()(*batch(3))


@pytest.mark.parametrize("shape", [(3, 10), (3, 4, 2), (3, 5, 3), (1, 5, 2), (2, 5, 2), (5, 2)])
@pytest.mark.parametrize("settings", [{}, {"anchor": "center", "position": "query"}])
def test_they_must_be_five_points_for_each_image(shape, settings):
    with pytest.raises(ValueError, match=r"\(3, 5, 2\), in pixels of the crop, got"):
        build(**settings)(*batch(3), torch.zeros(shape))


@pytest.mark.parametrize("each", [7, 10, 20, 36, 60])
def test_a_ring_of_centres_looks_up_one_row_whatever_the_rounding(each):
    landmarks = faces(20)
    centers = g.center_places(5 * each, "landmarks", landmarks)
    rows = PIFSettings(1.9, 3.8, 15.2)(g.facial_distance(centers, landmarks, None))
    at_template = g.center_places(5 * each, "landmarks").numpy()
    for landmark, (x, y) in enumerate(LANDMARKS):
        own = range(each * landmark, each * (landmark + 1))
        radii = np.hypot(*(at_template[own] - (x, y)).T).round(6)
        for radius in set(radii):
            ring = own.start + np.flatnonzero(radii == radius)
            assert len(rows[:, ring, landmark].unique()) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"face_distance": None},
        {"face_weight": 0.0},
        {"face_distance": "saliency", "saliency_map": "map.npy"},
        {"face_distance": "saliency", "saliency_map": "teacher"},
    ],
)
def test_settings_that_never_look_at_them_are_refused(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("map.npy", MAP)
    with pytest.raises(ConfigError, match=r"changes nothing here: set urfm\.anchor"):
        build(anchor="center", **settings)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"face_distance": None}, "or urfm.face_distance, or leave"),
        ({"face_weight": 0.0}, "or urfm.face_weight above 0, or leave"),
        (
            {"face_distance": "saliency", "saliency_map": "teacher", "face_weight": 0.0},
            "or urfm.face_weight above 0 and urfm.saliency_map=None, or leave",
        ),
    ],
)
def test_what_keeps_them_from_being_looked_at_is_named(settings, advice):
    with pytest.raises(ConfigError) as error:
        build(anchor="center", **settings)
    assert advice in str(error.value)


def test_a_saliency_that_the_teacher_gives_goes_with_them():
    settings = {"face_distance": "saliency", "saliency_map": "teacher", "anchor": "landmarks"}
    urfm, both, landmarks = build(**settings), batch(4), faces(4)
    urfm(*both, landmarks)
    assert (urfm.saliency >= 0).all()
    saliency = urfm.saliency.numpy()
    found = urfm.layout.to_patches("student", landmarks)
    expected = brute_force(
        places(3, 3), places(*GRIDS[0]), "saliency", 1.0, lambda p: bilinear(saliency, p, 108)
    )
    np.testing.assert_allclose(found.expand(4, 9, 49)[2], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["relative", "saliency"])
def test_mirrored_faces_have_mirrored_distances(kind):
    landmarks = faces(3).numpy()
    a, b = (torch.rand(n, 2, dtype=torch.float64) * 112 for n in (6, 9))
    flip = torch.tensor([-1.0, 1.0]), torch.tensor([111.0, 0.0])
    flipped = torch.from_numpy(mirror(landmarks))
    torch.testing.assert_close(
        g.facial_distance(a, b, kind, landmarks=torch.from_numpy(landmarks)),
        g.facial_distance(a * flip[0] + flip[1], b * flip[0] + flip[1], kind, landmarks=flipped),
    )
