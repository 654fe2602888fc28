"""The trap of URFM: learned on both sides, it collapses unless the teacher's side is held."""

import pytest
import torch
from torch import nn

from arcface_cakd.alignment import URFM, Anchoring, effective_rank
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import urfm_attention_loss, urfm_feature_loss

GRID, IMAGES, BATCH, STEPS = (4, 4), 96, 16, 200


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


def teacher_rank(seed, anchored, stop_gradient=False):
    """Effective rank of held-out teacher-side local features before and after 200 steps."""
    torch.manual_seed(seed)
    teacher, embedding, seen = faces(seed)
    student = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 24))
    urfm = URFM(
        24, GRID, 32, GRID, num_centers=16, dim=24, num_heads=2, stop_gradient=stop_gradient
    )
    anchoring = Anchoring(24, 16, 24)
    learned = [*student.parameters(), *urfm.parameters(), *anchoring.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=0.02, weight_decay=5e-4)
    held_out = slice(IMAGES - 32, IMAGES)

    def align(batch):
        side = FaceFeatures(None, student(seen[batch]), GRID)
        return urfm(side, FaceFeatures(None, teacher[batch], GRID))

    def rank():
        with torch.no_grad():
            return effective_rank(align(held_out).teacher.h)

    before = rank()
    for step in range(STEPS):
        batch = (torch.arange(BATCH) + step * BATCH) % (IMAGES - 32)
        both = align(batch)
        loss = urfm_feature_loss(both.student.attended, both.teacher.attended)
        loss = loss + urfm_attention_loss(both.student.attention, both.teacher.attention)
        if anchored:
            loss = loss + anchoring(both.teacher.h, embedding[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return before, rank()


@pytest.mark.parametrize("anchored", [False, True])
def test_the_teacher_side_collapses_unless_it_is_anchored(anchored):
    before, after = teacher_rank(seed=0, anchored=anchored)
    assert (after >= before / 2) == anchored
    assert anchored or after < before / 3


def test_the_default_stop_gradient_keeps_the_rank_without_anchoring():
    before, after = teacher_rank(seed=1, anchored=False, stop_gradient=True)
    assert after >= before / 2
