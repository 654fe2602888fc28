"""Other optimisers, losses and loggers of the real arcface_torch, three micro-steps each."""

import json
import re
import textwrap

import pytest
import torch
from helpers.host import differences, side_by_side
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TERMS = ["embedding_cosine", "urfm_feature", "urfm_attention", "anchoring", "preservation"]

CENTER_LOSS = """
    from arcface_cakd import LOSSES
    from arcface_cakd.losses import DistillationLoss


    @LOSSES.register("center_distance")
    class CenterDistance(DistillationLoss):
        needs = frozenset({"labels", "logits", "centers"})

        def forward(self, student, teacher, batch):
            apart = batch.partial_fc.weight - batch.teacher_fc.weight
            return apart[batch.labels].square().sum(dim=1).mean()
"""

# wandb's own interface, as far as the host uses it; what is logged goes to a file.
WANDB = """
    import json, os


    class Run:
        def __init__(self):
            self.config = {}

        def log(self, values, commit=True):
            with open(os.environ["WANDB_FILE"], "a") as file:
                file.write(json.dumps([values, commit]) + chr(10))


    def login(key):
        pass


    def init(**settings):
        return Run()
"""


def write_module(folder, name, source):
    (folder / f"{name}.py").write_text(textwrap.dedent(source))
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def few(few_records, teacher):
    """Settings of three micro-steps of 4 images, with prompts."""

    def settings(**cakd):
        teacher_entry = {"network": "swin_mini", "weights": teacher}
        entry = {"teacher": teacher_entry, "prompts": {}, **cakd}
        return {
            "rec": few_records,
            "num_classes": 3,
            "num_image": 12,
            "batch_size": 4,
            "cakd": entry,
        }

    return settings


@pytest.fixture(scope="module")
def runs(host, few, tmp_path_factory):
    """By name: a teacher; from it one with AdamW, accumulation and a loss of the user's on the
    class centres of both; and one with every logger."""
    folder = tmp_path_factory.mktemp("modules")
    loss_env = write_module(folder, "center_loss", CENTER_LOSS)
    wandb_env = write_module(folder, "wandb", WANDB)
    wandb_env["WANDB_FILE"] = str(folder / "wandb.jsonl")

    def with_centers():
        teacher = host.train("teacher", **{**few(), "network": "swin_mini", "cakd": None})
        entry = {
            "network": "swin_mini",
            "weights": teacher.output / "model.pt",
            "centers": teacher.output / "checkpoint_gpu_*.pt",
        }
        losses = [{"name": "embedding_cosine"}, {"name": "center_distance", "weight": 0.5}]
        return teacher, host.train(
            "adamw",
            env=loss_env,
            before="import center_loss",
            optimizer="adamw",
            lr=0.001,
            gradient_acc=2,
            # Of these losses it does not follow, and its parameters have steps to take.
            **few(teacher=entry, losses=losses, urfm={}),
        )

    (teacher, adamw), logged = side_by_side(
        with_centers,
        lambda: host.train("logged", env=wandb_env, using_wandb=True, notes="", **few()),
    )
    entries = [json.loads(line) for line in (folder / "wandb.jsonl").read_text().splitlines()]
    return {"teacher": teacher, "adamw": adamw, "logged": logged, "wandb": entries}


def test_adamw_steps_once_in_three_accumulated_micro_steps(runs):
    checkpoint = runs["adamw"].checkpoint()
    optimizer = checkpoint["state_optimizer"]
    names = [group.get("name") for group in optimizer["param_groups"]]
    assert names[:3] == ["student", "prompts", "urfm"] and len(names) == 4
    stepped = [state["step"].item() for state in optimizer["state"].values()]
    assert set(stepped) == {1}
    before = runs["adamw"].records[0]["first"]["state"]
    after = checkpoint["state_dict_backbone"]
    prompts = [name for name in before if name.startswith("prompts.")]
    assert prompts and not any(torch.equal(before[name], after[name]) for name in prompts)


def test_a_loss_gets_labels_and_the_centers_of_both(runs):
    record = runs["adamw"].records[0]
    assert [list(terms) for terms in record["terms"]] == [
        ["embedding_cosine", "center_distance", "anchoring", "preservation"]
    ] * 3
    centers = runs["teacher"].checkpoint()["state_dict_softmax_fc"]["weight"].double()
    apart = record["first"]["centers"].double() - centers
    expected = 0.5 * apart[record["first"]["labels"]].square().sum(dim=1).mean().item()
    assert record["terms"][0]["center_distance"] == pytest.approx(expected, rel=1e-5)


def test_a_teacher_trained_in_the_host_teaches(runs):
    model = runs["teacher"].load("model.pt")
    assert not differences(dict(runs["adamw"].records[0]["teacher"]), dict(model))


def step_of(line):
    return int(re.search(r"Global Step: (\d+)", line).group(1))


def test_the_log_line_shows_every_term(runs):
    lines = [line for line in runs["logged"].log.splitlines() if "Global Step" in line]
    assert [step_of(line) for line in lines] == [2, 3]
    for line in lines:
        record = runs["logged"].records[0]
        terms = record["terms"][step_of(line) - 1]
        margin = record["margins"][step_of(line) - 1]
        for name, value in {"margin": margin, **terms}.items():
            shown = re.search(rf" {name} ([-\d.e]+)", line)
            assert float(shown.group(1)) == pytest.approx(value, rel=1e-3), name


def test_tensorboard_has_every_term(runs):
    events = EventAccumulator(str(runs["logged"].output / "tensorboard"))
    events.Reload()
    for name in TERMS:
        found = {event.step: event.value for event in events.Scalars(f"cakd/{name}")}
        terms = [step[name] for step in runs["logged"].records[0]["terms"]]
        assert found == pytest.approx({2: terms[1], 3: terms[2]}, rel=1e-5), name
    assert "cakd/teacher_rank" in events.Tags()["scalars"]


def test_wandb_has_every_term(runs):
    with_terms = [values for values, _ in runs["wandb"] if "Distillation/anchoring" in values]
    steps = runs["logged"].records[0]["terms"][-len(with_terms) :]
    assert len(with_terms) >= 2
    for values, terms in zip(with_terms, steps, strict=True):
        assert {name: values[f"Distillation/{name}"] for name in TERMS} == pytest.approx(
            terms, rel=1e-5
        )
    # The host's own entries come once per step, and ours start none.
    committed = [values for values, commit in runs["wandb"] if commit]
    assert [values["Process/Step"] for values in committed] == [1, 2, 3]


MISTAKES = {
    "a misspelt key": ({"prompst": None}, "prompts"),
    "an unknown loss": ({"losses": [{"name": "embeding_cosine"}]}, "embedding_cosine"),
    "missing weights": (
        {"teacher": {"network": "swin_mini", "weights": "nowhere/model.pt"}},
        "nowhere/model.pt",
    ),
}


@pytest.fixture(scope="module")
def mistaken(host, few):
    """By mistake, the run that it stopped; one of them with two processes."""
    jobs = [
        lambda entry=entry, number=number: host.train(
            f"mistake_{number}", check=False, **few(**entry)
        )
        for number, (entry, _) in enumerate(MISTAKES.values())
    ]
    return dict(zip(MISTAKES, side_by_side(*jobs), strict=True))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, mistaken):
    run, (_, says) = mistaken[mistake], MISTAKES[mistake]
    assert run.code == 1, run.err
    last = run.err.rstrip().splitlines()[-1]
    assert last.startswith("arcface-cakd: error: ") and says in last
    assert "Traceback" not in run.err
    assert run.losses == []


def test_two_processes_say_a_mistake_once(host, few):
    settings = few(teacher={"network": "swin_mini", "weights": "nowhere/model.pt"})
    run = host.train("mistake_two", processes=2, check=False, **settings)
    assert run.code == 1
    # torchrun's report says what each process said once more, in lines of its own.
    own = [line for line in run.err.splitlines() if line.startswith("arcface-cakd: error: ")]
    assert len(own) == 1
    assert [record["losses"] for record in run.records] == [[], []]
