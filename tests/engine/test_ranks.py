"""Several ranks against one process that computes the same another way."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.engine_runs import TinyFace, assert_same_state, small_cakd, small_config
from helpers.processes import as_torchrun, run_ranks
from torch.nn.functional import cross_entropy, normalize, one_hot

from arcface_cakd.distributed import rank
from arcface_cakd.engine import (
    DivergenceError,
    check_teacher,
    checkpoint_path,
    load_distiller,
    train,
)
from arcface_cakd.engine.builders import Run, build_model, build_run
from arcface_cakd.engine.errors import CheckpointError, TeacherError
from arcface_cakd.engine.stepping import Stepper, average_gradients


def loss_and_gradients(config):
    run = build_run(config, torch.device("cpu"))
    initial = {k: v.clone() for k, v in run.student.state_dict().items()}
    images, labels = next(iter(run.loader))
    stepper = Stepper(run.optimizer, clip_grad_norm=None)
    loss = sum(run.terms(images, labels).values())
    stepper.backward(loss)
    stepper.prepare()
    return {
        "initial": initial,
        "images": images,
        "labels": labels,
        "loss": loss.item(),
        "gradients": {name: p.grad for name, p in run.student.named_parameters()},
        "centers": run.partial_fc.weight.detach(),
        "center_gradient": run.partial_fc.weight.grad,
    }


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_equal_one_process_that_takes_their_shares_in_turn(faces, tmp_path, ranks):
    # Seven classes over two or three ranks: the shards differ in size.
    config = small_config(faces, tmp_path / "out", num_classes=7)
    results = run_ranks(loss_and_gradients, ranks, tmp_path, config)

    student = TinyFace(config.embedding_size, dropout=0.0)
    student.load_state_dict(results[0]["initial"])
    student.train().to(memory_format=torch.channels_last)  # as on a CPU: the same rounding
    # BatchNorm sees one rank's share at a time.
    embeddings = torch.cat([student(result["images"]) for result in results]).double()
    centers = torch.cat([result["centers"] for result in results]).double().requires_grad_()
    labels = torch.cat([result["labels"] for result in results])
    cosines = normalize(embeddings) @ normalize(centers).T
    _, _, margin = config.margin_list
    logits = config.margin_scale * (cosines - margin * one_hot(labels, 7))
    loss = cross_entropy(logits, labels)
    loss.backward()

    # Biases before a BatchNorm have a gradient of zero, up to rounding in the others' scale.
    largest = max(float(p.grad.abs().max()) for p in student.parameters())
    for result in results:
        assert result["loss"] == pytest.approx(loss.item(), rel=1e-5)
        for name, parameter in student.named_parameters():
            difference = (result["gradients"][name] - parameter.grad).abs().max()
            assert difference <= 1e-4 * parameter.grad.abs().max() + 1e-5 * largest, name
    shards = torch.cat([result["center_gradient"] for result in results]).double()
    torch.testing.assert_close(shards, centers.grad, rtol=1e-4, atol=1e-7)


def average_in_buckets(bucket_bytes):
    generator = torch.Generator().manual_seed(rank())
    sizes = [(3, 2), (5,), (40,), (1,), (2, 2), (7,)]
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in sizes]
    for parameter in parameters[:-1]:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    own = [p.grad.clone() for p in parameters[:-1]]
    average_gradients(parameters, bucket_bytes)
    return own, [p.grad for p in parameters]


@pytest.mark.parametrize("bucket_bytes", [1, 48, 10**6])
def test_gradients_are_averaged_whatever_the_buckets(tmp_path, bucket_bytes):
    results = run_ranks(average_in_buckets, 2, tmp_path, bucket_bytes)
    for _, averaged in results:
        for i, (left, right) in enumerate(zip(results[0][0], results[1][0], strict=True)):
            torch.testing.assert_close(averaged[i], (left + right) / 2)
        assert averaged[-1] is None


def straight_and_resumed(straight, resumed):
    as_torchrun()
    train(straight)
    train(resumed, stop_after_step=3)
    result = train(dataclasses.replace(resumed, resume=True))
    return result.history


def test_distilling_ranks_stay_equal_to_the_bit_and_resume(faces, tmp_path):
    settings = dict(
        cakd=small_cakd(), sample_rate=0.5, num_epoch=2, batch_size=4, save_all_states=True
    )
    configs = [small_config(faces, tmp_path / name, **settings) for name in ("a", "b")]
    histories = run_ranks(straight_and_resumed, 2, tmp_path, *configs)
    assert histories[0] and histories[1] == []

    read = [
        [torch.load(checkpoint_path(c.output, r), weights_only=True) for r in (0, 1)]
        for c in configs
    ]
    for straight, resumed in zip(*read, strict=True):
        assert_same_state(straight, resumed)
    assert read[0][0]["config"] == read[0][1]["config"]
    first, second = (checkpoint["state_dict_backbone"] for checkpoint in read[0])
    statistics = {name for name in first if "running_" in name}
    for name in first.keys() - statistics:
        assert torch.equal(first[name], second[name]), name
    assert any(not torch.equal(first[name], second[name]) for name in statistics)
    model = torch.load(tmp_path / "a" / "model.pt", weights_only=True)
    for name, tensor in model.items():
        assert torch.equal(tensor, first[f"student.{name}"])


def trained_by_torchrun(config):
    as_torchrun()
    train(config)


def read_ranks(config, ranks):
    paths = [checkpoint_path(config.output, number) for number in range(ranks)]
    return [torch.load(path, weights_only=True) for path in paths]


@pytest.mark.parametrize("ranks", [2, 3])
def test_what_ranks_shard_is_whole_in_the_distiller_that_is_looked_at(faces, tmp_path, ranks):
    # Seven classes: shards of 4 and 3, or 3, 2 and 2.
    own = [dict(name="embedding_cosine"), dict(name="adadistill")]
    cakd = small_cakd(prompts=None, urfm=None, losses=own)
    config = small_config(
        faces, tmp_path / "out", cakd=cakd, num_classes=7, num_epoch=1, save_all_states=True
    )
    run_ranks(trained_by_torchrun, ranks, tmp_path, config)
    states = [content["state_dict_backbone"] for content in read_ranks(config, ranks)]
    found = load_distiller(config).state_dict()
    assert found.keys() == states[0].keys()
    name = "losses.adadistill.centers"
    assert found[name].shape == (7, 16)
    for number, classes in enumerate(np.array_split(np.arange(7), ranks)):
        assert torch.equal(found[name][classes], states[number][name][: len(classes)])
    assert all(row.any() for row in found[name])
    for other in found.keys() - {name}:
        assert torch.equal(found[other], states[0][other]), other

    last = checkpoint_path(config.output, ranks - 1)
    content = torch.load(last, weights_only=True)
    torch.save({**content, "global_step": 1}, last)
    with pytest.raises(CheckpointError, match="of different steps") as error:
        load_distiller(config)
    assert "\n" not in str(error.value)
    last.unlink()
    with pytest.raises(CheckpointError, match=rf"checkpoint_gpu_{ranks - 1}\.pt") as error:
        load_distiller(config)
    assert "\n" not in str(error.value) and f"{ranks} ranks" in str(error.value)


def with_teachers_of_their_own(config, seeds):
    """What each rank is told, where its random teacher is of the rank's seed of each row."""
    said = []
    for row in seeds:
        distiller = build_model(dataclasses.replace(config, seed=row[rank()]), num_classes=6)
        try:
            said.append(check_teacher(distiller, rec="", names=[]))
        except TeacherError as error:
            said.append(str(error))
    return said


def test_ranks_learn_from_one_teacher_or_stop_together(faces, tmp_path):
    config = small_config(faces, tmp_path / "out", cakd=small_cakd())
    seeds = [(3, 3, 3), (3, 3, 4), (4, 3, 3)]
    told = run_ranks(with_teachers_of_their_own, 3, tmp_path, config, seeds)
    assert told[0] == told[1] == told[2]
    same, last, first = told[0]
    assert same is None
    assert "weights on rank 2 are not rank 0's" in last and "\n" not in last
    assert "weights on rank 1 are not rank 0's" in first


def resume_from_other_steps(config):
    as_torchrun()
    train(config, stop_after_step=2)
    ahead = checkpoint_path(config.output, 1)
    kept = ahead.read_bytes()
    train(dataclasses.replace(config, force=True), stop_after_step=3)
    if rank() == 1:
        ahead.write_bytes(kept)
    torch.distributed.barrier()
    with pytest.raises(CheckpointError) as error:
        train(dataclasses.replace(config, resume=True))
    return str(error.value)


def test_checkpoints_of_different_steps_are_refused_on_every_rank(faces, tmp_path):
    config = small_config(faces, tmp_path / "out", save_all_states=True)
    messages = run_ranks(resume_from_other_steps, 2, tmp_path, config)
    assert messages[0] == messages[1]
    assert "by rank: 3, 2" in messages[0] and "\n" not in messages[0]


def diverge_on_the_last_rank(config):
    as_torchrun()
    plain, calls = Run.terms, []

    def terms(self, images, labels):
        calls.append(1)
        bad = rank() == 1 and len(calls) == 3
        own = torch.tensor(float("nan") if bad else 0.0)
        return {**plain(self, images, labels), "own": own}

    Run.terms = terms
    with pytest.raises(DivergenceError) as error:
        train(config)
    return str(error.value)


def test_a_divergence_on_one_rank_stops_all(faces, tmp_path):
    config = small_config(faces, tmp_path / "out", checkpoint_every=3)
    messages = run_ranks(diverge_on_the_last_rank, 2, tmp_path, config)
    assert messages[0] == messages[1] and "step 3: not finite: own;" in messages[0]
    assert not list((tmp_path / "out").glob("*.pt"))
