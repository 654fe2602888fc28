"""Sides, heads and plain softmaxes for tests of losses over identities."""

import numpy as np
import torch
from torch import nn

from arcface_cakd import distributed
from arcface_cakd.features import FaceFeatures
from arcface_cakd.partial_fc import ArcFace, PartialFC, shard_of


def side(embedding, stages=()):
    return FaceFeatures(embedding, torch.zeros(len(embedding), 1, 3), (1, 1), stages=tuple(stages))


class HostHead(nn.Module):
    """What arcface_torch's PartialFC_V2 offers after a forward pass, of centres (classes, E)."""

    def __init__(self, centers, sampled=None):
        super().__init__()
        self.class_start, self.num_local = shard_of(
            len(centers), distributed.rank(), distributed.world_size()
        )
        end = self.class_start + self.num_local
        self.weight = nn.Parameter(centers[self.class_start : end].clone())
        self.sample_rate = 1.0
        if sampled is not None:
            self.sample_rate = 0.5
            self.weight_index = rows_of(sampled, self.class_start, self.num_local)


def rows_of(sampled, start, count):
    """The rows of a shard that hold the sampled classes."""
    return torch.tensor([n - start for n in sampled if start <= n < start + count]).long()


def own_head(centers, sampled=None):
    """The same as our own PartialFC, in the centres' dtype."""
    rate = 1.0 if sampled is None else 0.5
    head = PartialFC(ArcFace(), centers.shape[1], len(centers), sample_rate=rate).to(centers.dtype)
    head.set_centers(centers)
    if sampled is not None:
        head.weight_index = rows_of(sampled, head.class_start, head.num_local)
    return head


def frozen_head(centers):
    """The teacher's."""
    return own_head(centers).requires_grad_(False)


def log_probabilities(logits):
    """log softmax of one row, in float64 and by the definition."""
    logits = np.asarray(logits, dtype=np.float64)
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def cosines(embeddings, centers):
    """(N, C) by loops."""
    embeddings, centers = np.asarray(embeddings), np.asarray(centers)
    return np.array([[e @ c / np.sqrt((e @ e) * (c @ c)) for c in centers] for e in embeddings])


def check_golden(case, loss, student, gradient_tolerance=1e-8):
    """That loss(student) has the value and gradient that were recorded."""
    student = student.clone().requires_grad_()
    value = loss(student)
    (gradient,) = torch.autograd.grad(value, student)
    np.testing.assert_allclose(value.item(), case["value"], rtol=1e-9)
    np.testing.assert_allclose(
        gradient.norm().item(), case["gradient_norm"], rtol=gradient_tolerance
    )
    np.testing.assert_allclose(
        gradient.flatten()[:6].tolist(), case["gradient"], rtol=1e-6, atol=1e-10
    )
