import math

import numpy as np
import pytest
import torch
from helpers.face_distances import LANDMARKS, bilinear, brute_force, places, row_of
from helpers.processes import run_ranks
from helpers.urfm_forms import LEARNED

from arcface_cakd.alignment import URFM, PIFSettings
from arcface_cakd.alignment.saliency import teacher_saliency
from arcface_cakd.features import FaceFeatures

GRID, EXTENT = (4, 6), 108
SETTINGS = {"face_distance": "saliency", "num_centers": 9, "dim": 8, "num_heads": 2}


def reference(batches):
    """The map of the ranks' batches (B, N, C), one token at a time."""
    total = np.zeros(batches[0].shape[1])
    for batch in batches:
        x = batch.double().numpy()
        for c in range(x.shape[2]):
            x[:, :, c] = (x[:, :, c] - x[:, :, c].mean()) / math.sqrt(x[:, :, c].var() + 1e-5)
        for j in range(x.shape[1]):
            faces = [math.sqrt((face[j] ** 2).sum() / x.shape[2]) for face in x]
            total[j] += sum(faces) / len(faces) / len(batches)
    return (total - total.min()) / (total.max() - total.min())


def tokens(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return 3 * draw(6) + (draw(24, 1).abs() + 0.5) * draw(3, 24, 6)


def build(**settings):
    torch.manual_seed(0)
    given = {"saliency_map": "teacher", **SETTINGS, **LEARNED, **settings}
    return URFM(5, (3, 3), 6, GRID, 112, EXTENT, **given).double()


def batch(seed, prompts=2):
    extra = tokens(seed + 50)[:, :prompts] * 9
    student = FaceFeatures(None, torch.randn(3, 9, 5, dtype=torch.float64), (3, 3))
    return student, FaceFeatures(None, tokens(seed), GRID, extra)


def test_the_map_equals_a_float64_reference():
    for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        ours = teacher_saliency(tokens(0).to(dtype))
        assert (ours.dtype, ours.min(), ours.max()) == (torch.float64, 0.0, 1.0)
        np.testing.assert_allclose(ours.numpy(), reference([tokens(0)]), atol=atol)


def test_tokens_that_are_all_alike_have_no_saliency():
    assert not teacher_saliency(torch.ones(2, 24, 6)).any()
    signs = torch.ones(2, 24, 6) * torch.tensor([1.0, -1.0])[:, None, None]
    assert not teacher_saliency(signs).any()


@pytest.mark.parametrize("position", ["query", "query_key"])
def test_the_first_training_batch_decides_what_tables_are_looked_up_by(position):
    urfm = build(position=position, anchor="landmarks")
    template = build(position=position, anchor="landmarks", saliency_map=None)
    urfm.eval()(*batch(0))  # nothing is estimated from what is evaluated
    for a, b in ((urfm.student, template.student), (urfm.teacher, template.teacher)):
        assert torch.equal(a.anchor_encoding.index, b.anchor_encoding.index)
    assert (urfm.saliency < 0).all()

    urfm.train()(*batch(1))
    saliency = reference([tokens(1)]).reshape(GRID)
    np.testing.assert_allclose(urfm.saliency.numpy(), saliency, atol=1e-6)
    centers = places(3, 3)
    for given, grid, extent in (("student", (3, 3), 112), ("teacher", GRID, EXTENT)):
        mapping, before = getattr(urfm, given), getattr(template, given)
        for name, others in (("anchor", LANDMARKS), ("pair", places(*grid, extent))):
            encoding = getattr(mapping, f"{name}_encoding")
            if encoding is None:
                assert (position, name) == ("query", "pair")
                continue
            of_template = brute_force(centers, others, "saliency", 1.0)
            pif = PIFSettings.spread(torch.tensor(of_template))  # the constants stay
            distance = brute_force(
                centers,
                others,
                "saliency",
                1.0,
                lambda p: bilinear(urfm.saliency.numpy(), p, EXTENT),
            )
            rows = [[row_of(d, pif) for d in row] for row in distance]
            assert encoding.index.tolist() == rows
            assert rows != getattr(before, f"{name}_encoding").index.tolist()
            if name == "pair":  # it starts anew as receptive fields
                used = sorted(set(np.ravel(rows).tolist()))
                mean = {r: distance[np.array(rows) == r].mean() for r in used}
                for head, slope in enumerate((2.0, 0.25)):
                    table = [slope * (max(mean.values()) - mean[r]) for r in used]
                    ours = encoding.table[head, used].detach()
                    np.testing.assert_allclose(ours.numpy(), table, rtol=1e-6, atol=1e-6)
            else:
                assert torch.equal(encoding.table, before.anchor_encoding.table)


def test_later_batches_and_a_resumed_run_keep_the_map():
    urfm = build()
    urfm(*batch(1))
    with torch.no_grad():
        for p in urfm.parameters():  # as training would
            p += 0.1 * torch.randn_like(p)
    saliency, table = urfm.saliency.clone(), urfm.teacher.pair_encoding.table.detach().clone()
    urfm(*batch(2))
    assert torch.equal(urfm.saliency, saliency)
    assert torch.equal(urfm.teacher.pair_encoding.table, table)

    for training in (True, False):
        resumed = build()
        if training:
            resumed(*batch(4))  # a map of its own, which the loaded one replaces
        resumed.load_state_dict(urfm.state_dict())
        given = batch(3)
        ours, theirs = urfm.train(training)(*given), resumed.train(training)(*given)
        assert torch.equal(resumed.saliency, saliency)
        for side in ("student", "teacher"):
            assert torch.equal(getattr(ours, side).attended, getattr(theirs, side).attended)


def test_only_this_setting_adds_to_the_state():
    assert set(build().state_dict()) - set(build(saliency_map=None).state_dict()) == {"saliency"}


def test_a_batch_that_is_not_finite_decides_nothing():
    urfm = build()
    student, teacher = batch(1)
    teacher.tokens[0, 0, 0] = float("inf")
    urfm(student, teacher)
    assert (urfm.saliency < 0).all()
    urfm(*batch(1))
    assert (urfm.saliency >= 0).all()


def estimate(seeds):
    urfm = build()
    urfm(*batch(seeds[torch.distributed.get_rank()]))
    return urfm.saliency, urfm.teacher.pair_encoding.index, urfm.student.pair_encoding.table


def test_ranks_share_the_mean_of_their_maps(tmp_path):
    first, second = run_ranks(estimate, 2, tmp_path, (4, 5))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    expected = reference([tokens(4), tokens(5)]).reshape(GRID)
    np.testing.assert_allclose(first[0].numpy(), expected, atol=1e-6)
