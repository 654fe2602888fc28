"""What ranks exchange in a step, and the two ways of exchanging it."""

import itertools
from unittest import mock

import pytest
import torch
from helpers.processes import run_ranks

from arcface_cakd.bench import BenchError, Report, scaling, scaling_rank
from arcface_cakd.bench.faces import make_faces, train_config
from arcface_cakd.bench.scaling import EXCHANGE, OURS, WRAPPED, least_bytes, measure_scaling
from arcface_cakd.bench.scaling_rank import Wrapped, measure
from arcface_cakd.bench.step import Steps

CPU = torch.device("cpu")


def sent_in_a_ring(sizes, ranks):
    """Bytes that each rank sends where the pieces of a sum, one a rank, go round twice."""
    sent = [0] * ranks
    for size, (step, rank) in itertools.product(
        sizes, itertools.product(range(2 * (ranks - 1)), range(ranks))
    ):
        sent[(rank + step) % ranks] += size / ranks
    return sent


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_the_least_is_what_a_ring_sends(ranks):
    parameters, batch, width = 8 * 9 * 10, 6, 16
    messages = 0.0
    for sender, receiver in itertools.product(range(ranks), repeat=2):
        if sender == 0 and receiver != 0:
            messages += batch * width * 4  # embeddings of its images
            messages += batch * width * 4  # and of the gradients, those of the receiver's images
            messages += batch * ranks * 3 * 4  # the softmax's three numbers of every image
    gradients = sent_in_a_ring([parameters * 4], ranks)
    assert gradients == pytest.approx([gradients[0]] * ranks)
    assert least_bytes(parameters, batch, width, ranks) == pytest.approx(gradients[0] + messages)


def both_ways(faces):
    """The weights after a step of each kind, and what ``measure`` finds."""
    config = train_config(faces, "r10_narrow", 2, num_classes=10)
    ours, theirs = Steps(config, CPU), Steps(config, CPU)
    wrapped = Wrapped(theirs)
    ours.without()
    wrapped.step()
    settings = {
        "faces": str(faces),
        "network": "r10_narrow",
        "batch_size": 2,
        "num_classes": 10,
        "rounds": 1,
    }
    with mock.patch.object(scaling_rank, "_WARM_UP", 0):
        found = measure(settings, CPU)
    weights = [
        {name: p.detach().clone() for name, p in side.run.student.named_parameters()}
        for side in (ours, wrapped)
    ]
    return *weights, found


def test_two_ranks_in_both_ways(tmp_path):
    faces = make_faces(tmp_path, 4)
    (ours, theirs, found), other = run_ranks(both_ways, 2, tmp_path, faces, timeout=300)
    start = Steps(train_config(faces, "r10_narrow", 2, num_classes=10), CPU).run.student
    moved = 0.0
    for name, before in start.named_parameters():
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-9)
        assert torch.equal(ours[name], other[0][name])
        moved = max(moved, float((ours[name] - before.detach()).abs().max()))
    assert moved > 1e-7
    for clock in ("seconds", "cpu_seconds"):
        lengths = {name: len(rounds) for name, rounds in found[clock].items()}
        assert lengths == {OURS: 1, WRAPPED: 1, EXCHANGE: 1}
    least = least_bytes(found["parameters"], 2, found["embedding_size"], 2)
    if found["sent"][0]:  # which Linux alone tells
        assert 1 <= found["sent"][0] / least < 1.1


def test_the_report_holds_layouts_against_their_parts(monkeypatch):
    def launch(settings, nodes, local, folder):
        seconds = {OURS: [2.0], EXCHANGE: [0.5]}
        if nodes * local > 1:
            seconds[WRAPPED] = [3.0]
        return {
            "seconds": seconds,
            "cpu_seconds": {OURS: [1.0], EXCHANGE: [0.1], WRAPPED: [1.5]},
            "sent": [4e6],
            "parameters": 10**6,
            "embedding_size": 512,
        }

    monkeypatch.setattr(scaling, "launch", launch)
    monkeypatch.setattr(scaling, "make_faces", lambda folder, images: folder)
    report = Report("", {})
    measure_scaling(report, "mbf", batch_size=4, rounds=1)
    assert not any(name.startswith("1 rank") for name in report.ratios)
    assert report.ratios["2 nodes: exchange of gradients / step"].median == 0.25
    assert report.ratios["2 nodes: exchange of gradients / step, CPU time"].median == 0.1
    assert report.ratios[f"3 ranks: {WRAPPED} / step"].median == 1.5
    assert report.ratios["2 ranks: bytes sent / least possible"].median == 4e6 / (
        4e6 + 2 * 4 * 512 * 4 + 3 * 4 * 2 * 4
    )
    assert report.amounts["2 ranks: exchange of gradients, MB/s"] == 8.0


def test_what_a_rank_raised_is_told_and_not_where(tmp_path, monkeypatch):
    agent = tmp_path / "agent"
    raised = "arcface_cakd.registry.UnknownNameError: unknown network 'nope'"
    agent.write_text(
        "#!/bin/sh\n"
        "echo 'raise UnknownNameError(hint)'\n"
        "echo '[rank0]:     raise ValueError('\n"
        f'echo "[rank0]: {raised}"\nexit 1\n'
    )
    agent.chmod(0o755)
    monkeypatch.setattr(scaling.sys, "executable", str(agent))
    with pytest.raises(
        BenchError, match=rf"1 node\(s\) of 2 rank\(s\) failed: \[rank0\]: {raised}"
    ):
        scaling.launch({}, 1, 2, tmp_path)


def test_a_rank_that_fails_is_told(tmp_path, monkeypatch):
    """torchrun's place is taken by a script: one agent fails, and the other would wait for it."""
    agent = tmp_path / "agent"
    agent.write_text(
        "#!/bin/sh\n"
        'case "$*" in *node-rank=1*) echo "NetworkError: no such network"; exit 1;; esac\n'
        "exec sleep 60\n"
    )
    agent.chmod(0o755)
    monkeypatch.setattr(scaling.sys, "executable", str(agent))
    with pytest.raises(BenchError, match=r"2 node\(s\) of 1 rank\(s\) failed: NetworkError: no"):
        scaling.launch({}, 2, 1, tmp_path)
