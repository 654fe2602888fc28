"""Steps with a value that is not finite: the run ends, or goes on as if they had not been."""

import dataclasses
import json

import pytest
import torch
from helpers.engine_runs import TinyFace, assert_same_state, small_cakd, small_config
from helpers.processes import as_torchrun, run_ranks

from arcface_cakd.distributed import rank
from arcface_cakd.engine import DivergenceError, checkpoint_path, train
from arcface_cakd.engine import loop as loop_module
from arcface_cakd.engine.builders import Run, build_run
from arcface_cakd.engine.divergence import advice
from arcface_cakd.engine.stepping import Stepper

CPU = torch.device("cpu")
PLAIN_TERMS, PLAIN_BUILD = Run.terms, build_run


def overflow(run, here, images, *others):
    """BatchNorm's statistics, and all that comes after, are not finite any more."""
    return PLAIN_TERMS(run, images * float("inf") if here else images, *others)


def steep(parameter):
    """A loss that is finite where its gradient is not, on some parameter of the run."""

    def terms(run, here, images, *others):
        # The derivative of a root at 0 is infinite, times 0.
        root = 0.0 * parameter(run).sum()
        root = root.sqrt() if here else root
        return {**PLAIN_TERMS(run, images, *others), "root": root}

    return terms


FAULTS = {
    "loss": overflow,
    "student": steep(lambda run: run.student.fc.weight),
    "centres": steep(lambda run: run.partial_fc.weight),
}


def batches_of(config, run):
    for epoch in range(config.num_epoch):
        run.loader.set_epoch(epoch)
        yield from run.loader


def inject(config, steps, fault, on_rank=0):
    """Let the batches of these micro-steps have a fault, however often a rank sees them."""
    chosen = [
        batch[0]
        for step, batch in enumerate(batches_of(config, PLAIN_BUILD(config, CPU)), 1)
        if step in steps
    ]

    def terms(run, images, *others):
        if any(torch.equal(images, bad) for bad in chosen):
            return fault(run, rank() == on_rank, images, *others)
        return PLAIN_TERMS(run, images, *others)

    Run.terms = terms


@pytest.fixture(autouse=True)
def restored():
    yield
    Run.terms = PLAIN_TERMS


def by_hand(config, left_out, forward=False):
    """Weights, buffers and centres of a plain run without these micro-steps.

    Args:
        config: of one epoch.
        left_out: the micro-steps.
        forward: whether they go through the network and end there.
    """
    run = PLAIN_BUILD(config, CPU)
    stepper = Stepper(run.optimizer, config.clip_grad_norm)
    losses = {}
    for step, batch in enumerate(batches_of(config, run), 1):
        if step not in left_out:
            terms = PLAIN_TERMS(run, *batch)
            losses[step] = float(terms["margin"].detach())
            stepper.backward(terms["margin"])
        elif forward:
            PLAIN_TERMS(run, *batch)
        if step % config.gradient_acc == 0:
            stepper.prepare()
            stepper.apply()
        run.schedule.step()
    return run.model.state_dict(), run.partial_fc.state_dict(), losses


def one_epoch(faces, output, **settings):
    defaults = dict(num_epoch=1, non_finite="skip", save_all_states=True, frequent=3)
    return small_config(faces, output, **{**defaults, **settings})


def learned(config, number=0):
    content = torch.load(checkpoint_path(config.output, number), weights_only=True)
    return content["state_dict_backbone"], content["state_dict_softmax_fc"], content["meter"]


@pytest.mark.parametrize("acc", [1, 2])
@pytest.mark.parametrize("bad", [(1,), (3, 4), (5, 9)])
def test_a_batch_that_overflows_leaves_no_trace(faces, tmp_path, bad, acc):
    config = one_epoch(faces, tmp_path, gradient_acc=acc)
    inject(config, bad, overflow)
    result = train(config)
    weights, centres, meter = learned(config)
    expected_weights, expected_centres, losses = by_hand(config, bad)
    assert_same_state(dict(weights), dict(expected_weights))
    assert_same_state(dict(centres), dict(expected_centres))
    assert meter["left_out"] == len(bad)

    lines = [line for line in result.history if "loss" in line]
    assert [line["left_out"] for line in lines] == [
        sum(step <= line["step"] for step in bad) for line in lines
    ]
    for line in lines:
        window = [losses[s] for s in range(line["step"] - 2, line["step"] + 1) if s in losses]
        assert line["loss"] == pytest.approx(sum(window) / len(window), rel=1e-6)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert all(json.loads(line) for line in text.splitlines()) and "NaN" not in text


@pytest.mark.parametrize("where", ["student", "centres"])
def test_a_gradient_that_overflows_moves_no_weight(faces, tmp_path, caplog, where):
    config = one_epoch(faces, tmp_path, clip_grad_norm=None if where == "student" else 5.0)
    inject(config, (4,), FAULTS[where])
    train(config)
    weights, centres, meter = learned(config)
    expected_weights, expected_centres, _ = by_hand(config, (4,), forward=True)
    assert_same_state(dict(weights), dict(expected_weights))
    assert_same_state(dict(centres), dict(expected_centres))
    assert meter["left_out"] == 1
    name = {"student": "student", "centres": "class centres"}[where]
    said = f"step 4: not finite: gradient of the {name}: the optimiser step is left out (1 of"
    assert said in caplog.text


def test_nothing_is_said_of_steps_that_were_all_left_out(faces, tmp_path):
    config = one_epoch(faces, tmp_path)
    inject(config, (4, 5, 6), overflow)
    result = train(config)
    assert [line["step"] for line in result.history] == [3, 9]
    assert "NaN" not in json.dumps(result.history)


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_a_resumed_run_counts_on(faces, tmp_path, stop):
    settings = dict(
        network="test_tiny_dropout", sample_rate=0.5, gradient_acc=2, num_epoch=2, frequent=4
    )
    straight = one_epoch(faces, tmp_path / "straight", **settings)
    resumed = one_epoch(faces, tmp_path / "resumed", **settings)
    inject(straight, (3, 6, 7), overflow)
    expected = train(straight)
    train(resumed, stop_after_step=stop)
    found = train(dataclasses.replace(resumed, resume=True))
    read = [torch.load(checkpoint_path(c.output), weights_only=True) for c in (straight, resumed)]
    assert_same_state(*read)
    assert read[0]["meter"]["left_out"] == 3
    for kept in ("loss", "left_out"):
        assert [line[kept] for line in found.history] == [line[kept] for line in expected.history]


def test_one_more_than_the_limit_ends_the_run(faces, tmp_path):
    config = one_epoch(faces, tmp_path, non_finite_limit=2, checkpoint_every=1)
    inject(config, (2, 4, 7), overflow)
    with pytest.raises(DivergenceError) as error:
        train(config)
    message = str(error.value)
    assert "step 7: not finite: margin" in message and "\n" not in message
    assert "after 2 left out (non_finite_limit)" in message and "lower lr" in message
    content = torch.load(checkpoint_path(tmp_path), weights_only=True)
    assert content["global_step"] == 6
    raised = dataclasses.replace(config, non_finite_limit=3, resume=True)
    assert train(raised).global_step == 9  # what the message leaves open works


def test_checkpoints_of_before_there_was_a_count_begin_it(faces, tmp_path):
    config = one_epoch(faces, tmp_path)
    train(config, stop_after_step=2)
    content = torch.load(checkpoint_path(tmp_path), weights_only=True)
    del content["meter"]["left_out"]
    torch.save(content, checkpoint_path(tmp_path))
    inject(config, (4,), overflow)
    train(dataclasses.replace(config, resume=True))
    assert learned(config)[2]["left_out"] == 1


def test_a_scaler_is_left_as_it_was_where_nothing_was_learned(faces, tmp_path, monkeypatch):
    """In float16; on the CPU the scaler is the same, and powers of two change no bit."""
    scalers = []

    def build(config, device):
        run = PLAIN_BUILD(config, device)
        run.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=4)
        scalers.append(run.scaler)
        return run

    monkeypatch.setattr(loop_module, "build_run", build)
    config = one_epoch(faces, tmp_path)
    inject(config, (3, 4), overflow)
    train(config)
    weights, centres, meter = learned(config)
    expected_weights, expected_centres, _ = by_hand(config, (3, 4))
    assert_same_state(dict(weights), dict(expected_weights))
    assert_same_state(dict(centres), dict(expected_centres))
    assert meter["left_out"] == 2
    # Seven steps were made: after the fourth the scale was doubled once.
    assert scalers[0].get_scale() == 512.0

    # An overflow of gradients is the scaler's: it leaves the step out, and halves the scale.
    config = one_epoch(faces, tmp_path / "gradient")
    inject(config, (4,), FAULTS["student"])
    train(config)
    assert_same_state(dict(learned(config)[0]), dict(by_hand(config, (4,), forward=True)[0]))
    assert learned(config)[2]["left_out"] == 0 and scalers[1].get_scale() == 256.0


def skip_on_the_last_rank(configs):
    as_torchrun()
    expected = {}
    for fault, config in configs.items():
        inject(config, (3, 8), FAULTS[fault], on_rank=1)
        train(config)
        weights, centres, _ = by_hand(config, (3, 8), forward=fault != "loss")
        expected[fault] = dict(weights), dict(centres)
    return expected


def test_all_ranks_leave_out_what_is_not_finite_on_one(faces, tmp_path):
    names = ("loss", "centres")
    configs = {name: one_epoch(faces, tmp_path / name, batch_size=2) for name in names}
    expected = run_ranks(skip_on_the_last_rank, 2, tmp_path, configs)
    for number in range(2):
        for name, config in configs.items():
            *found, meter = learned(config, number)
            assert meter["left_out"] == 2
            assert_same_state([dict(part) for part in found], list(expected[number][name]))


def test_a_teacher_that_overflows_is_said_to(faces, tmp_path):
    teacher = TinyFace(16, dropout=0.0)
    with torch.no_grad():
        teacher.fc.weight.fill_(3e38)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    cakd = small_cakd(
        teacher=dict(network="test_tiny", weights=str(tmp_path / "teacher.pt")),
        prompts=None,
        urfm=None,
        losses=[dict(name="embedding_cosine")],
    )
    for policy in ("stop", "skip"):
        config = one_epoch(
            faces, tmp_path / policy, cakd=cakd, non_finite=policy, non_finite_limit=1
        )
        with pytest.raises(DivergenceError) as error:
            train(config)
        message = str(error.value)
        assert "not finite: the teacher's embedding" in message and "\n" not in message
        assert "take other weights (cakd.teacher.weights)" in message and "lr" not in message


def test_advice_goes_by_what_was_not_finite(faces, tmp_path):
    config = one_epoch(faces, tmp_path, cakd=small_cakd(), fp16=True)
    # Obeyed, the teacher is no longer in float16, and other advice follows.
    assert "set cakd.teacher.bf16=True" in advice(config, ["the teacher's pixel features"])
    own = small_cakd(teacher={**config.cakd.teacher, "bf16": True})
    bf16 = dataclasses.replace(config, cakd=own)
    assert "take other weights" in advice(bf16, ["the teacher's pixel features"])
    # An ONNX file has a precision, and weights, of its own.
    alone = {"prompts": None, "urfm": None, "losses": [{"name": "embedding_cosine"}]}
    file = small_cakd(teacher={"network": "onnx:teacher.onnx", "cache": "cache"}, **alone)
    onnx = advice(dataclasses.replace(config, cakd=file), ["the teacher's embedding"])
    assert onnx.endswith(
        "take another file (cakd.teacher.network) and a new folder for its cache "
        "(cakd.teacher.cache)"
    )
    assert "lower lr (now 0.05)" in advice(config, ["the prompted teacher's embedding", "margin"])
    plain = dataclasses.replace(config, cakd=None, fp16=False)
    assert "teacher" not in advice(plain, ["margin"])


LEFT_BESIDE = {
    "centres that a loss draws in its first step": dict(
        urfm=None, anchoring=None, losses=[dict(name="adadistill")]
    ),
    "the saliency of the teacher's first batch": dict(
        urfm=dict(num_centers=4, num_heads=2, face_distance="saliency", saliency_map="teacher"),
        losses=[dict(name="urfm_feature")],
        anchoring=None,
    ),
}


def margin_alone(run, here, images, *others):
    terms = PLAIN_TERMS(run, images, *others)
    return {**terms, "margin": terms["margin"] * float("nan")} if here else terms


@pytest.mark.parametrize("what", LEFT_BESIDE)
@pytest.mark.parametrize("bad", [1, 4])
def test_what_a_first_batch_settles_the_next_one_settles(faces, tmp_path, what, bad):
    entry = small_cakd(prompts=None, **LEFT_BESIDE[what])
    config = one_epoch(faces, tmp_path / "out", cakd=entry)
    reference = PLAIN_BUILD(dataclasses.replace(config, output=str(tmp_path / "x")), CPU)
    stepper = Stepper(reference.optimizer, config.clip_grad_norm)
    for step, batch in enumerate(batches_of(config, reference), 1):
        if step != bad:
            stepper.backward(sum(PLAIN_TERMS(reference, *batch).values()))
            stepper.prepare()
            stepper.apply()
        reference.schedule.step()
    inject(config, (bad,), margin_alone)
    train(config)
    weights, centres, _ = learned(config)
    counted = "losses._extra_state"  # micro-steps, which the left-out one is of
    expected = {k: v for k, v in reference.model.state_dict().items() if k != counted}
    assert_same_state({k: v for k, v in weights.items() if k != counted}, expected)
    assert_same_state(dict(centres), dict(reference.partial_fc.state_dict()))
