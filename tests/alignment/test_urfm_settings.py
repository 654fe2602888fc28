"""Each setting of URFM changes what it says, and nothing else."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.face_distances import LANDMARKS, bilinear, brute_force, places, row_of
from helpers.urfm_forms import LEARNED

from arcface_cakd.alignment import URFM, PIFSettings
from arcface_cakd.config import check_settings
from arcface_cakd.config.settings import settings_of
from arcface_cakd.features import FaceFeatures

# Given, so that tables have as many rows whatever the distances, and all else is drawn alike.
PIF = PIFSettings(2.0, 9.0, 11.0)
GRIDS, EXTENTS = ((7, 7), (6, 6)), (112, 108)
MAP = np.linspace(0, 1, 20).reshape(4, 5) ** 2


def build(**settings):
    torch.manual_seed(0)
    given = {"num_centers": 9, "dim": 8, "num_heads": 2, "pif": PIF, **LEARNED, **settings}
    checked = check_settings(URFM, given, "cakd.urfm")
    return URFM(5, GRIDS[0], 8, GRIDS[1], *EXTENTS, **checked).double()


def batch():
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    prompts = draw(2, 3, 8).requires_grad_()
    return (
        FaceFeatures(None, draw(2, 49, 5), GRIDS[0]),
        FaceFeatures(None, draw(2, 36, 8), GRIDS[1], prompts),
        torch.tensor(LANDMARKS) + 8 * draw(2, 5, 2),
    )


def facets(urfm):
    """What settings govern, by name, in values that compare with ==."""
    sides = {"student": urfm.student, "teacher": urfm.teacher}
    state = {name: p.detach() for name, p in urfm.named_parameters()}
    with torch.no_grad():
        both = urfm(*batch())
    gradients = build_gradients(urfm)
    return {
        "places of centres": urfm.layout.places["center"].tolist(),
        "constants": [s.anchor_encoding and s.anchor_encoding.pif for s in sides.values()],
        "rows by anchor": [
            s.anchor_encoding and s.anchor_encoding.index.tolist() for s in sides.values()
        ],
        "rows by patch": [
            s.pair_encoding and s.pair_encoding.index.tolist() for s in sides.values()
        ],
        "fields": {n: p.tolist() for n, p in state.items() if "pair_encoding" in n},
        "parameters": {name: tuple(p.shape) for name, p in state.items()},
        "drawn": {n: p.tolist() for n, p in state.items() if "pair_encoding" not in n},
        "moved": gradients,
        "statistics": {n: tuple(b.shape) for n, b in urfm.named_buffers() if "running" in n},
        "reached": urfm_reaches_prompts(urfm),
        "values": [both.student.attended.tolist(), both.teacher.attended.tolist()],
    }


def urfm_reaches_prompts(urfm):
    """Whether a change of the prompts changes the teacher's side, and whether losses know of it."""
    student, teacher, landmarks = batch()
    both = urfm(student, teacher, landmarks)
    moved = urfm(student, replace(teacher, prompts=teacher.prompts + 1), landmarks)
    gradient = None
    if both.anchored.requires_grad:
        (gradient,) = torch.autograd.grad(both.anchored.sum(), teacher.prompts, allow_unused=True)
    return not torch.equal(both.teacher.h, moved.teacher.h), gradient is not None


def build_gradients(urfm):
    urfm.zero_grad()
    both = urfm(*batch())
    (both.student.attended - both.teacher.attended).square().mean().backward()
    return {n for n, p in urfm.named_parameters() if p.grad is not None and p.grad.any()}


ROWS = {"rows by anchor", "rows by patch", "fields", "values"}
NEW = {"parameters", "drawn", "moved", "values"}
CHANGES = {
    "num_centers": (16, {"places of centres", *ROWS, *NEW} - {"moved"}),
    "placing": ("landmarks", {"places of centres", *ROWS}),
    "shared_centers": (True, NEW),
    "lookup": (
        "position",
        {"constants", "rows by anchor", "parameters", "drawn", "moved", "values"},
    ),
    "shared_lookup": (True, {"fields", "parameters", "moved", "values"}),
    "fixed_values": (True, {"parameters", "drawn", "moved", "values"}),
    "standardise": ("place", {"statistics", "values"}),
    "prompt_tokens": ("detached", {"reached"}),
    "residual": (True, {"values"}),
    "dim": (16, {"parameters", "drawn", "values"}),
    "num_heads": (4, {"parameters", "fields", "values"}),
    "face_distance": ("saliency", ROWS),
    "face_weight": (0.25, ROWS),
    "position": ("query", {"rows by patch", "fields", "parameters", "moved", "values"}),
    "landmarks": ("image", {"values"}),
    "anchor": ("center", {"rows by anchor", "values"}),
    "pif": (PIFSettings(3.0, 9.0, 11.0), {"constants", *ROWS}),
    "saliency_map": ("map.npy", ROWS),
    "shared_msa": (False, NEW),
    "stop_gradient": (False, {"moved"}),
}


def test_every_setting_is_here():
    assert set(CHANGES) == set(settings_of(URFM))


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_changes_what_it_says_and_nothing_else(name, tmp_path, monkeypatch):
    value, expected = CHANGES[name]
    given = {}
    if name == "saliency_map":
        monkeypatch.chdir(tmp_path)
        np.save("map.npy", MAP)
        given = {"face_distance": "saliency"}
    before, after = facets(build(**given)), facets(build(**given, **{name: value}))
    assert {facet for facet in before if before[facet] != after[facet]} == expected


def test_shared_centres_are_one_parameter_and_the_rest_stays_apart():
    shared, own = build(shared_centers=True), build()
    assert set(own.state_dict()) - set(shared.state_dict()) == {"student.centers"}
    assert not set(shared.state_dict()) - set(own.state_dict())
    # As if the student's centres were a copy of the teacher's.
    state = shared.state_dict()
    own.load_state_dict({**state, "student.centers": state["teacher.centers"]})
    for given in ("student", "teacher"):
        a, b = (getattr(urfm(*batch()), given) for urfm in (shared, own))
        assert torch.equal(a.attended, b.attended) and torch.equal(a.lookup, b.lookup)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_shared_centres_learn_as_the_teacher_side_does(stop_gradient):
    shared = build(shared_centers=True, stop_gradient=stop_gradient)
    assert ("teacher.centers" in build_gradients(shared)) != stop_gradient
    shared.zero_grad()
    shared(*batch()).anchored.sum().backward()
    assert shared.teacher.centers.grad.any()


@pytest.mark.parametrize(
    ("settings", "kind", "weight", "anchors"),
    [
        ({}, "relative", 1.0, [LANDMARKS[2]]),
        ({"face_distance": None}, None, 0.0, [LANDMARKS[2]]),
        ({"face_distance": None, "face_weight": 3.0}, None, 0.0, [LANDMARKS[2]]),
        ({"face_weight": 0.0}, None, 0.0, [LANDMARKS[2]]),
        ({"face_weight": 2.5}, "relative", 2.5, [LANDMARKS[2]]),
        ({"face_distance": "saliency"}, "saliency", 1.0, [LANDMARKS[2]]),
        ({"face_distance": "saliency", "saliency_map": "map.npy"}, "map", 1.0, [LANDMARKS[2]]),
        ({"anchor": "center"}, "relative", 1.0, [(55.5, 55.5)]),
        ({"anchor": "landmarks"}, "relative", 1.0, LANDMARKS),
        ({"placing": "landmarks", "num_centers": 12}, "relative", 1.0, [LANDMARKS[2]]),
    ],
)
def test_tables_are_looked_up_by_the_distances_that_settings_name(
    settings, kind, weight, anchors, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    np.save("map.npy", MAP)
    saliency = None
    if kind == "map":
        kind, saliency = "saliency", lambda p: bilinear(MAP, p)
    urfm = build(**settings)
    centers = places(3, 3)
    if settings.get("placing") == "landmarks":
        centers = [tuple(p) for p in urfm.layout.places["center"].tolist()]
    for mapping, grid, extent in zip((urfm.student, urfm.teacher), GRIDS, EXTENTS, strict=True):
        for encoding, others in (
            (mapping.anchor_encoding, anchors),
            (mapping.pair_encoding, places(*grid, extent)),
        ):
            distance = brute_force(centers, others, kind, weight, saliency)
            assert encoding.index.tolist() == [[row_of(d, PIF) for d in row] for row in distance]
            assert encoding.table.shape[1] == PIF.rows


def test_each_anchor_has_a_table_and_their_entries_are_summed():
    encoding = build(anchor="landmarks").student.anchor_encoding
    assert encoding.table.shape == (5, PIF.rows, 8)
    for i, rows in enumerate(encoding.index.tolist()):
        expected = sum(encoding.table[a, row].detach() for a, row in enumerate(rows))
        torch.testing.assert_close(encoding()[i].detach(), expected)


def test_the_logits_get_the_entry_of_their_row_and_prompts_none():
    urfm = build(num_heads=4)
    with torch.no_grad():
        for name, p in urfm.teacher.named_parameters():
            if name.startswith(("query", "key")):
                p.zero_()  # what is left of a logit is c
        urfm.teacher.anchor_encoding.table.zero_()
        urfm.teacher.pair_encoding.table.normal_()
    lookup = urfm(*batch()).teacher.lookup[0]
    table = urfm.teacher.pair_encoding.table.detach().numpy()
    rows = urfm.teacher.pair_encoding.index.numpy()
    for head in range(4):
        for i in range(9):
            e = np.array([math.exp(table[head, r]) for r in rows[i]] + [1.0] * 3)
            np.testing.assert_allclose(lookup[head, i].numpy(), e / e.sum(), rtol=1e-9)
