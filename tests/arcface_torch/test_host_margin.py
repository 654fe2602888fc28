"""AdaFace, and class centres of another run, in the real arcface_torch."""

import math

import pytest
import torch
from helpers.host import differences

from arcface_cakd.partial_fc import AdaFace, load_centers

ADAFACE = {"m": 0.3, "h": 1.0, "t_alpha": 0.5}


@pytest.fixture(scope="module")
def first(host):
    """With AdaFace, on two ranks."""
    return host.train("adaface", processes=2, batch_size=4, adaface=ADAFACE)


@pytest.fixture(scope="module")
def frozen(host, first):
    """By these centres, which stay, on one rank; sampled, so that more than one path is run."""
    return host.train(
        "frozen",
        init_centers=first.output / "checkpoint_gpu_*.pt",
        freeze_centers=True,
        sample_rate=0.5,
        adaface=ADAFACE,
    )


def statistics(checkpoint):
    state = checkpoint["state_dict_softmax_fc"]
    return [state[f"margin_softmax.batch_{name}"] for name in ("mean", "std")]


def test_both_ranks_have_the_same_statistics_and_these_have_moved(first):
    ranks = [statistics(first.checkpoint(rank)) for rank in (0, 1)]
    assert not differences(*ranks)
    assert 0 < ranks[0][0].item() < 100 and ranks[0][0].item() != 20
    assert 0 < ranks[0][1].item() < 100  # seven steps take 100 below 1 where norms are near alike
    assert "AdaFace(s=64" in first.log and "in place of margin_list" in first.log


def test_margin_is_that_of_the_embeddings_norms(first):
    """Of the first step: by the centres, images and network that each rank recorded."""
    records = first.records
    norms = torch.cat(
        [record["first"]["embeddings"].norm(dim=1, keepdim=True) for record in records]
    )
    margin = AdaFace(64.0, **ADAFACE)
    margin.observe(norms)
    embeddings = torch.cat([record["first"]["embeddings"] for record in records])
    centers = torch.cat([record["first"]["centers"] for record in records])
    labels = torch.cat([record["first"]["labels"].view(-1) for record in records]).long()
    cosines = torch.nn.functional.cosine_similarity(embeddings[:, None], centers[None], dim=2)
    expected = torch.nn.functional.cross_entropy(margin(cosines, labels), labels)
    for record in records:
        assert record["margins"][0] == pytest.approx(expected.item(), rel=1e-4)


def test_centers_of_two_ranks_are_taken_over_by_one_and_stay(first, frozen):
    joined = load_centers(str(first.output / "checkpoint_gpu_*.pt"))
    assert torch.equal(frozen.records[0]["first"]["centers"], joined)
    assert torch.equal(frozen.checkpoint()["state_dict_softmax_fc"]["weight"], joined)
    assert len(frozen.losses) == 7 and all(map(math.isfinite, frozen.losses))
