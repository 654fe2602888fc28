"""Made faces: who it is stays apart from the picture, and landmarks are where they are said."""

import dataclasses

import numpy as np
import pytest
from skimage.transform import estimate_transform

from arcface_cakd.landmarks import ARCFACE_TEMPLATE
from arcface_cakd.synthesis.head import Head, align, rotation
from arcface_cakd.synthesis.identity import (
    Identity,
    Spot,
    change_appearance,
    mean_bones,
    sample_hair,
    sample_identity,
)
from arcface_cakd.synthesis.nuisance import (
    Camera,
    Expression,
    Jitter,
    Nuisance,
    sample_nuisance,
)
from arcface_cakd.synthesis.render import render

RED = (0.9, 0.0, 0.0)


def person(seed: int) -> Identity:
    return sample_identity(np.random.default_rng([seed, 0]))


def bare(identity: Identity) -> Identity:
    """Without hair, beard and marks, which would cover what a test looks for."""
    hair = sample_hair(np.random.default_rng(0), identity.looks.hair.colour)
    hair = dataclasses.replace(
        hair, hairline=-200.0, length=-200.0, framing=-2.0, sweep=0.0, curl=0.0, volume=1.0
    )
    looks = dataclasses.replace(identity.looks, beard=0.0, moustache=0.0, spots=(), hair=hair)
    return Identity(identity.bones, looks)


def clear(seed: int, difficulty: float) -> Nuisance:
    """A drawn pose, expression, light and crop, seen by a perfect camera, with nothing before."""
    drawn = sample_nuisance(np.random.default_rng([seed, 1]), difficulty)
    expression = dataclasses.replace(drawn.expression, gaze=(0.0, 0.0), eye_open=1.2)
    return dataclasses.replace(
        drawn, camera=Camera(), glasses=None, cover=None, expression=expression
    )


def centroid_of_change(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    change = np.abs(one.astype(float) - other).sum(axis=2)
    assert change.max() > 30, "nothing changed"
    rows, columns = np.mgrid[0:112, 0:112]
    return np.array([(columns * change).sum(), (rows * change).sum()]) / change.sum()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("difficulty", [0.0, 0.7, 1.5])
def test_landmarks_are_where_marks_on_the_skin_appear(seed, difficulty):
    identity, nuisance = bare(person(seed)), clear(seed, difficulty)
    without, landmarks = render(identity, nuisance)
    head = Head(identity.bones, identity.looks.weight, nuisance.expression)
    facing = rotation(*nuisance.pose)[2]
    for point, landmark in zip(head.landmarks(), landmarks, strict=True):
        x, y, _ = point
        outward = np.array([x / head.bones.cheek_width**2, 0.0, 1 / 88.0])
        if facing @ outward / np.linalg.norm(outward) < 0.45:
            continue  # too near the outline: its visible part is not centred on it
        spot = Spot(float(x), float(y), 2.2, 0.0, 0.0, 1.0, RED)
        looks = dataclasses.replace(identity.looks, spots=(spot,))
        marked, _ = render(Identity(identity.bones, looks), nuisance)
        seen = centroid_of_change(marked, without)
        assert np.abs(seen - landmark).max() < 1.0


@pytest.mark.parametrize("seed", range(6))
def test_eyes_are_where_the_irises_are(seed):
    identity, nuisance = bare(person(seed)), clear(seed, 0.4)
    nuisance = dataclasses.replace(nuisance, pose=(0.2 - 0.07 * seed, 0.05, 0.1))
    light, dark = (
        Identity(identity.bones, dataclasses.replace(identity.looks, iris=colour))
        for colour in ((0.9, 0.9, 0.9), (0.05, 0.05, 0.05))
    )
    one, landmarks = render(light, nuisance)
    other, _ = render(dark, nuisance)
    middle = int(landmarks[:2, 0].mean())
    for eye, side in ((0, slice(0, middle)), (1, slice(middle, 112))):
        mask = np.zeros((112, 112, 1))
        mask[:, side] = 1
        seen = centroid_of_change(one * mask, other * mask)
        assert np.abs(seen - landmarks[eye]).max() < 1.5


@pytest.mark.parametrize("seed", range(5))
def test_at_difficulty_0_the_crop_is_the_least_squares_alignment(seed):
    nuisance = sample_nuisance(np.random.default_rng(seed), 0.0)
    _, landmarks = render(person(seed), nuisance)
    assert landmarks.dtype == np.float32
    left = estimate_transform("similarity", landmarks, ARCFACE_TEMPLATE)
    np.testing.assert_allclose(left.params, np.eye(3), atol=1e-3)
    assert np.abs(landmarks - ARCFACE_TEMPLATE).max() < 8
    assert abs(landmarks[0, 1] - landmarks[1, 1]) < 2


def test_the_mean_face_stands_on_the_template():
    pose = align(Head(mean_bones(), 0.0, Expression()), (0.0, 0.0, 0.0), Jitter())
    np.testing.assert_allclose(pose.landmarks, ARCFACE_TEMPLATE, atol=1.0)


def test_jitter_shifts_turns_and_scales_the_crop():
    head = Head(mean_bones(), 0.0, Expression())
    straight = align(head, (0.0, 0.0, 0.0), Jitter()).landmarks
    jitter = Jitter(shift=(3.0, -2.0), rotation=0.1, scale=1.2)
    moved = align(head, (0.0, 0.0, 0.0), jitter).landmarks
    found = estimate_transform("similarity", straight, moved)
    np.testing.assert_allclose([found.scale, found.rotation], [1.2, 0.1], atol=1e-6)
    centre = ARCFACE_TEMPLATE.mean(0)
    np.testing.assert_allclose(found(centre)[0] - centre, (3.0, -2.0), atol=1e-4)


def test_turning_hides_one_side():
    head = Head(mean_bones(), 0.0, Expression())
    turned = align(head, (0.8, 0.0, 0.0), Jitter()).landmarks
    straight = align(head, (0.0, 0.0, 0.0), Jitter()).landmarks
    # The nose stands out, so it moves off the middle of the eyes, to the side it turns to.
    off = turned[2, 0] - turned[:2, 0].mean()
    assert off - (straight[2, 0] - straight[:2, 0].mean()) > 4


@pytest.mark.parametrize("seed", range(3))
def test_pictures_of_a_person_differ_by_nuisance_only(seed):
    identity = person(seed)
    first, second = (
        render(identity, sample_nuisance(np.random.default_rng([seed, 1, k]), 0.0))[0]
        for k in range(2)
    )
    middle = (slice(40, 100), slice(36, 76))  # no backdrop, no clothes
    np.testing.assert_array_equal(first[middle], second[middle])
    other = render(person(seed + 100), sample_nuisance(np.random.default_rng([seed, 1, 0]), 0.0))[0]
    assert np.abs(first[middle].astype(int) - other[middle]).mean() > 3


def test_difficulty_scales_nuisance():
    def spread(difficulty):
        drawn = [sample_nuisance(np.random.default_rng(k), difficulty) for k in range(200)]
        covered = sum(n.cover is not None or n.glasses is not None for n in drawn)
        return np.std([n.pose[0] for n in drawn]), max(n.camera.blur for n in drawn), covered

    none, default, hard = spread(0.0), spread(1.0), spread(1.6)
    assert none == (0.0, 0.0, 0)
    assert all(a < b for a, b in zip(default, hard, strict=True))
    assert min(default) > 0


def test_profile_is_turned_and_frontal_is_not():
    def yaws(view):
        rngs = (np.random.default_rng(k) for k in range(100))
        return np.abs(np.degrees([sample_nuisance(rng, 1.0, view).pose[0] for rng in rngs]))

    assert yaws("profile").min() >= 35 and yaws("frontal").max() <= 16


@pytest.mark.parametrize("seed", range(3))
def test_changed_appearance_keeps_bones_iris_and_marks(seed):
    before = person(seed)
    after = change_appearance(before, np.random.default_rng(seed))
    assert after.bones == before.bones
    assert after.looks.iris == before.looks.iris and after.looks.spots == before.looks.spots
    assert after.looks.hair != before.looks.hair
    assert after.looks.wrinkles > before.looks.wrinkles


@pytest.mark.parametrize("seed", range(30))
def test_hard_pictures_render_without_a_numerical_accident(seed):
    with np.errstate(all="raise", under="ignore"):
        image, landmarks = render(
            person(seed), sample_nuisance(np.random.default_rng(seed), 3.0, "any")
        )
    assert image.shape == (112, 112, 3) and image.dtype == np.uint8
    assert image.std() > 5 and np.isfinite(landmarks).all()
