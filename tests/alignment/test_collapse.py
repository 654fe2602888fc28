"""The trap of URFM: learned on both sides, it collapses unless the teacher's side is held."""

from dataclasses import dataclass

import torch
from helpers.urfm_forms import LEARNED
from torch import nn

from arcface_cakd.alignment import URFM, Anchoring, effective_rank
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.urfm_attention_loss import urfm_attention_loss
from arcface_cakd.losses.urfm_feature_loss import urfm_feature_loss

GRID, IMAGES, BATCH, STEPS, SEED = (4, 4), 96, 16, 200, 0


def faces(seed):
    """Frozen teacher tokens, their embeddings, and what the student sees of the same faces."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    identity, nuisance = draw(IMAGES, 16), draw(IMAGES, 6)
    places = GRID[0] * GRID[1]

    def tokens(width):
        signal = torch.einsum("nck,mk->mnc", draw(places, width, 16), identity) / 4
        other = torch.einsum("nck,mk->mnc", draw(places, width, 6), nuisance) / 4
        return torch.tanh(signal + 0.7 * other) + 0.3 * draw(IMAGES, places, width)

    return tokens(32), torch.tanh(identity @ draw(16, 24) / 4), tokens(20)


@dataclass(frozen=True)
class Measured:
    """Of held-out teacher-side features: rank, and the share of power that tells images apart."""

    rank: float
    between_images: float

    @classmethod
    def of(cls, x):
        between = (x - x.mean(0)).square().mean() / x.square().mean()
        return cls(effective_rank(x), between.item())


def train(seed, *, anchored, stop_gradient):
    """h_T and MSA(h_T), each before and after 200 steps of alignment."""
    torch.manual_seed(seed)
    teacher, embedding, seen = faces(seed)
    student = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 24))
    # Few centres: constants that differ from centre to centre have no more than 4 directions.
    # Of the form in which all is learned, which alone can collapse so.
    form = {**LEARNED, "stop_gradient": stop_gradient}
    urfm = URFM(24, GRID, 32, GRID, num_centers=4, dim=24, num_heads=2, **form)
    anchoring = Anchoring(24, 4, 24, drop=0.0)
    learned = [*student.parameters(), *urfm.parameters(), *anchoring.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=0.02, weight_decay=5e-4)
    held_out = slice(IMAGES - 32, IMAGES)

    def align(batch):
        side = FaceFeatures(None, student(seen[batch]), GRID)
        return urfm(side, FaceFeatures(None, teacher[batch], GRID))

    def measure():
        with torch.no_grad():
            local = align(held_out).teacher
        return Measured.of(local.h), Measured.of(local.attended)

    before = measure()
    for step in range(STEPS):
        batch = (torch.arange(BATCH) + step * BATCH) % (IMAGES - 32)
        both = align(batch)
        loss = urfm_feature_loss(both.student.attended, both.teacher.attended)
        loss = loss + urfm_attention_loss(both.student.attention, both.teacher.attention)
        if anchored:
            loss = loss + anchoring(both.anchored, embedding[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (h_before, attended_before), (h_after, attended_after) = before, measure()
    return h_before, h_after, attended_before, attended_after


def test_by_default_h_and_what_is_aligned_keep_their_rank():
    h_before, h_after, before, after = train(SEED, anchored=True, stop_gradient=True)
    assert h_after.rank >= h_before.rank / 2
    assert after.rank >= before.rank / 2
    assert after.between_images >= before.between_images / 2


def test_without_stop_gradient_anchoring_holds_h_but_not_what_is_aligned():
    h_before, h_after, before, after = train(SEED, anchored=True, stop_gradient=False)
    assert h_after.rank >= 0.7 * h_before.rank
    assert h_after.between_images >= h_before.between_images / 2
    assert after.rank < before.rank / 2
    assert after.between_images < before.between_images / 10


def test_without_either_both_collapse():
    h_before, h_after, before, after = train(SEED, anchored=False, stop_gradient=False)
    assert h_after.rank < 0.7 * h_before.rank
    assert h_after.between_images < h_before.between_images / 2
    assert after.rank < before.rank / 4
    assert after.between_images < before.between_images / 100
