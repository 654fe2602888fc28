"""The functions that a patched arcface_torch calls, without one."""

import builtins
import inspect
import json
import runpy
import sys

import numpy as np
import pytest
import torch
from easydict import EasyDict as edict
from helpers.engine_runs import make_faces
from helpers.full_disk import full_disk
from helpers.processes import run_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from arcface_cakd import arcface_torch as cakd
from arcface_cakd.arcface_torch.host_distiller import LINES_PER_NORMS, HostDistiller
from arcface_cakd.backbones import build_teacher, get_model
from arcface_cakd.data import read_bin
from arcface_cakd.distiller import Distiller
from arcface_cakd.evaluation import embed, verification_metrics
from arcface_cakd.partial_fc import ArcFace, PartialFC
from arcface_cakd.resources import resource_dir

E, CLASSES, BATCH = 16, 6, 4


def make_cfg(**changes):
    cfg = edict(
        network="r10_narrow",
        embedding_size=E,
        num_classes=CLASSES,
        num_image=50,
        num_epoch=3,
        batch_size=BATCH,
        frequent=2,
        fp16=False,
        lr=0.1,
        weight_decay=5e-4,
        resume=False,
        cakd=edict(
            teacher=edict(network="swin_mini", weights="random"),
            prompts=edict(num_tokens=2),
            urfm=edict(num_centers=9, num_heads=2),
            losses=[edict(name="embedding_cosine", weight=2.0), edict(name="urfm_attention")],
        ),
    )
    cfg.update(changes)
    return cfg


class HostNetwork(nn.Module):
    """What arcface_torch's own networks are to us: a module with the same keys, no FaceBackbone."""

    def __init__(self):
        super().__init__()
        for name, child in get_model("r10_narrow", num_features=E).named_children():
            self.add_module(name, child)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((BATCH, 3, 112, 112), generator=generator) * 2 - 1
    return images, torch.randint(CLASSES, (BATCH,), generator=generator)


@pytest.fixture(scope="module")
def distiller():
    torch.manual_seed(3)
    return cakd.distill(HostNetwork(), make_cfg()).train()


def test_a_plain_config_passes_through_unchanged():
    network, cfg = nn.Linear(2, 2), make_cfg(cakd=None)
    before = torch.get_rng_state()
    assert cakd.distill(network, cfg) is network
    assert torch.equal(torch.get_rng_state(), before)
    loss, hook = torch.tensor(3.0), object()
    assert cakd.total_loss(loss, network, None, None) is loss
    assert cakd.comm_hook(network, hook) is hook
    (group,) = cakd.parameter_groups(network, cfg)
    assert list(group) == ["params"]
    assert [id(p) for p in group["params"]] == [id(p) for p in network.parameters()]
    wrapped = nn.Module()
    wrapped.module = network
    assert cakd.student(wrapped) is network
    callback = edict()
    cakd.log_to(callback, network, None, None)
    assert cakd.log_line(callback, "Loss 1", 10) == "Loss 1"
    assert cakd.check_teacher(cfg, wrapped) is None


def test_the_student_has_the_weights_that_the_host_drew():
    torch.manual_seed(11)
    network = HostNetwork()
    before = torch.get_rng_state()
    distiller = cakd.distill(network, make_cfg())
    assert torch.equal(torch.get_rng_state(), before)  # so Partial FC starts alike
    assert isinstance(distiller, HostDistiller)
    theirs, ours = network.state_dict(), distiller.student.state_dict()
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
    wrapped = nn.Module()
    wrapped.module = distiller
    assert cakd.student(wrapped) is distiller.student


def test_weights_that_change_over_the_run_go_by_the_hosts_count_of_steps(caplog):
    cfg = make_cfg()
    cfg.cakd.losses[0].schedule = edict(kind="decay")
    distiller = cakd.distill(HostNetwork(), cfg).train()
    assert not [record for record in caplog.records if "schedule" in record.getMessage()]
    images, _ = batch()
    for step in range(3):
        distiller(images)
        term = distiller.terms(None)["embedding_cosine"].item()
        distiller.losses.steps_done = 0
        distiller(images)
        start = distiller.terms(None)["embedding_cosine"].item()
        # 50 images are 12 batches of 4, three times over.
        assert term == pytest.approx(start * (1 - 12 * step / 36), rel=1e-5)
        distiller.losses.steps_done = 12 * (step + 1)


@pytest.mark.parametrize("dtype, key", [(torch.float16, "fp16"), (torch.bfloat16, "bf16")])
def test_precision_reaches_student_and_teacher(dtype, key):
    distiller = cakd.distill(HostNetwork(), make_cfg(**{key: True}))
    assert distiller.student.amp_dtype is distiller.teacher.amp_dtype is dtype


def test_bfloat16_reaches_a_plain_network_of_ours():
    network = get_model("r10_narrow", num_features=E)
    cfg = make_cfg(cakd=None, bf16=True)
    assert cakd.distill(network, cfg).amp_dtype is torch.bfloat16


def test_a_plain_network_of_the_host_s_starts_from_given_weights(tmp_path):
    torch.manual_seed(4)
    start = get_model("r10_narrow", num_features=E).state_dict()
    torch.save(start, tmp_path / "model.pt")
    for network in (HostNetwork(), get_model("r10_narrow", num_features=E)):
        cfg = make_cfg(cakd=None, init_weights=str(tmp_path / "model.pt"))
        before = torch.get_rng_state()
        assert cakd.distill(network, cfg) is network
        assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(v, start[k]) for k, v in network.state_dict().items())
    network = HostNetwork()
    cfg = make_cfg(cakd=None, init_weights="gone.pt", resume=True)
    assert cakd.distill(network, cfg) is network


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"init_weights": "model.pt"}, ["init_weights", "cakd.student_weights"]),
        ({"cakd": None, "init_weights": "no.pt"}, ["no.pt", "no such file"]),
        ({"cakd": edict(teachr=edict())}, ["teachr", "'teacher'"]),
        ({"cakd": edict(teacher=edict(network="swin_mini", weights="no.pt"))}, ["no.pt"]),
        ({"network": "r2060"}, ["r2060", "BACKBONES"]),
        ({"network": "r18"}, ["r18", "missing"]),  # the host's has other keys
        ({"fp16": True, "bf16": True}, ["fp16", "bf16"]),
        ({"cakd": None, "bf16": True}, ["bf16", "r10_narrow"]),
        ({"bf16": "yes"}, ["bf16", "True or False", "'yes'"]),
    ],
)
def test_a_mistake_ends_the_program_with_one_line(changes, words, capsys):
    with pytest.raises(SystemExit) as stop:
        cakd.distill(HostNetwork(), make_cfg(**changes))
    assert stop.value.code == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith("arcface-cakd: error: ")
    assert all(word in line for word in words), line


@pytest.mark.parametrize("margin_weight", [1.0, 0.25, 0.0])
def test_the_loss_is_the_weighted_margin_and_every_term(margin_weight):
    cfg = make_cfg()
    cfg.cakd.margin_weight = margin_weight
    torch.manual_seed(5)
    hosted = cakd.distill(HostNetwork(), cfg).train()
    teacher = build_teacher(E, **hosted.config.teacher)
    teacher.load_state_dict(hosted.teacher.state_dict())
    reference = Distiller(get_model("r10_narrow", num_features=E), teacher, cfg.cakd, CLASSES)
    reference.load_state_dict(hosted.state_dict())
    reference.train()
    images, labels = batch()
    apart = torch.zeros(CLASSES, requires_grad=True)  # of class centres
    margin = nn.functional.cross_entropy(hosted(images)[:, :CLASSES] + apart, labels)
    torch.manual_seed(7)  # anchoring draws
    total = cakd.total_loss(margin, hosted, labels, None)
    reference(images)
    torch.manual_seed(7)
    terms = reference.terms(labels)
    assert set(terms) == {"embedding_cosine", "urfm_attention", "anchoring", "preservation"}
    expected = margin_weight * float(margin.detach()) + sum(
        float(term.detach()) for term in terms.values()
    )
    assert float(total.detach()) == pytest.approx(expected, rel=1e-6)
    total.backward()
    assert all(p.grad is not None for p in hosted.student.parameters() if p.requires_grad)
    assert (apart.grad is None) == (margin_weight == 0)  # nothing went back through the margin


@pytest.mark.parametrize("margin_weight", [0.5, 0.0])
def test_the_partial_fc_that_nothing_needs_gets_one_class(margin_weight, caplog):
    cfg = make_cfg(sample_rate=0.1)
    cfg.cakd.margin_weight = margin_weight
    with caplog.at_level("INFO"):
        cakd.distill(HostNetwork(), cfg)
    said = [r.getMessage() for r in caplog.records if "Partial FC" in r.getMessage()]
    if margin_weight:
        assert (cfg.num_classes, cfg.sample_rate) == (CLASSES, 0.1) and not said
    else:
        assert (cfg.num_classes, cfg.sample_rate) == (1, 1.0)
        (line,) = said
        assert "one class a rank" in line and f"num_classes {CLASSES}" in line


def test_the_groups_are_those_of_the_distiller(distiller):
    groups = cakd.parameter_groups(distiller, make_cfg())
    assert [g["name"] for g in groups] == ["student", "prompts", "urfm"]
    assert [g["weight_decay"] for g in groups] == [5e-4, 0.0, 5e-4]


@pytest.mark.parametrize("clipping", ["separate", "shared"])
def test_clipping_keeps_the_budgets_that_the_config_says(clipping):
    cfg = make_cfg()
    cfg.cakd.clipping = clipping
    distiller = cakd.distill(HostNetwork(), cfg)
    generator = torch.Generator().manual_seed(1)
    trained = [p for p in distiller.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = 3 * torch.randn(parameter.shape, generator=generator)
    student = {id(p) for p in distiller.student.parameters()}
    raw = [p.grad.double().numpy().ravel() for p in trained]
    in_student = np.concatenate([np.full(p.numel(), id(p) in student) for p in trained])
    flat = np.concatenate(raw)
    norm = float(cakd.clip_grad_norm(distiller, 5))
    assert norm == pytest.approx(np.linalg.norm(flat), rel=1e-4)
    if clipping == "shared":
        expected = flat * 5 / np.linalg.norm(flat)
    else:
        expected = flat.copy()
        for mask in (in_student, ~in_student):
            expected[mask] *= 5 / np.linalg.norm(flat[mask])
    clipped = np.concatenate([p.grad.double().numpy().ravel() for p in trained])
    np.testing.assert_allclose(clipped, expected, rtol=1e-4, atol=1e-9)


def _small_gradients(plain):
    """The gradient of a bias, 1e-9 times (rank + 1) for each image, as the hook averages it."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

    torch.manual_seed(0)
    network = get_model("r10_narrow", num_features=E)
    if not plain:
        network = cakd.distill(network, make_cfg())
    ddp = DistributedDataParallel(network, find_unused_parameters=True)
    ddp.register_comm_hook(None, cakd.comm_hook(ddp, fp16_compress_hook))
    ddp.train()
    (ddp(batch()[0]) * 1e-9 * (torch.distributed.get_rank() + 1)).sum().backward()
    return cakd.student(ddp).features.bias.grad.clone()


def test_small_gradients_survive_the_exchange_between_ranks(tmp_path):
    for gradient in run_ranks(_small_gradients, 2, tmp_path, True):
        assert not gradient.any()  # what the host's own hook does to them
    for gradient in run_ranks(_small_gradients, 2, tmp_path, False):
        torch.testing.assert_close(gradient, torch.full((E,), BATCH * 1.5e-9), rtol=1e-5, atol=0)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("seam") / "faces")


def test_the_teacher_is_checked_on_the_host_s_sets(faces, distiller, caplog, capsys):
    wrapped = nn.Module()
    wrapped.module = distiller
    more = dict(rec=str(faces), output="unused", num_workers=0)
    cfg = make_cfg(val_targets=["cfp_fp", "lfw"], **more)
    before = torch.get_rng_state()
    with caplog.at_level("INFO", "arcface_cakd"):
        cakd.check_teacher(cfg, wrapped)
    assert torch.equal(torch.get_rng_state(), before)
    (message,) = caplog.messages
    accuracy = verification_metrics(
        embed(distiller.teacher, (pairs := read_bin(faces / "lfw.bin")).images), pairs.issame
    ).accuracy
    assert message.startswith(f"teacher: lfw {100 * accuracy:.2f} %, of random weights")
    assert distiller.training

    for targets, said in ((["lfw"], "below cakd.teacher.min_accuracy"), ([], "no validation set")):
        demanding = make_cfg(val_targets=targets, **more)
        demanding.cakd.teacher.min_accuracy = 1.0
        wrapped.module = cakd.distill(HostNetwork(), demanding)
        with pytest.raises(SystemExit) as stop:
            cakd.check_teacher(demanding, wrapped)
        line = capsys.readouterr().err
        assert stop.value.code == 1 and line.count("\n") == 1 and said in line


@pytest.mark.parametrize("step", ["the next step", "a checkpoint", "model.pt"])
@pytest.mark.parametrize("whose", ["the student's", "the teacher's"])
def test_what_is_not_finite_ends_the_program_with_one_line(tmp_path, capsys, step, whose):
    """Before anything is saved: the host itself would train on."""
    distiller = cakd.distill(HostNetwork(), make_cfg()).train()
    images, labels = torch.rand(BATCH, 3, 112, 112), torch.arange(BATCH)
    margin = torch.tensor(1.0)
    for number in (1, 2):
        assert cakd.labels(distiller, labels) is labels
        distiller(images)
        if number == 2 and whose == "the student's":
            margin = torch.tensor(float("inf"))
        elif number == 2:
            with torch.no_grad():
                next(iter(distiller.teacher.parameters())).fill_(float("nan"))
            distiller(images)
        cakd.total_loss(margin, distiller, labels, None)
    partial_fc = PartialFC(ArcFace(), E, CLASSES)
    cfg = make_cfg(rec="synthetic", output=str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        if step == "the next step":
            cakd.labels(distiller, labels)
        elif step == "a checkpoint":
            cakd.run_state(distiller, partial_fc, _amp(2.0))
        else:
            cakd.save_model(distiller, cfg, None, tmp_path / "model.pt")
    said = capsys.readouterr().err
    assert stop.value.code == 1 and said.count("\n") == 1
    assert said.startswith("arcface-cakd: error: training diverged at step 2: not finite: ")
    if whose == "the teacher's":
        assert "the teacher's embedding" in said and "cakd.teacher.weights" in said
    else:
        assert "not finite: margin;" in said and "lower config.lr" in said
    assert not list(tmp_path.iterdir())


def test_a_teacher_that_overflows_in_float16_is_told_of_bfloat16():
    """Which takes effect beside a student in float16; and then other advice is given."""
    for teacher, advice in (({}, "set cakd.teacher.bf16=True"), ({"bf16": True}, "other weights")):
        cfg = make_cfg(fp16=True)
        cfg.cakd.teacher.update(teacher)
        distiller = cakd.distill(HostNetwork(), cfg)
        assert distiller.student.amp_dtype is torch.float16
        assert distiller.teacher.amp_dtype is (torch.bfloat16 if teacher else torch.float16)
        assert advice in distiller._advice(["the teacher's embedding"])


def _amp(scale):
    return torch.amp.GradScaler("cpu", init_scale=scale)


def _draws():
    import random

    return [torch.rand(3).tolist(), random.random(), np.random.rand(2).tolist()]


def test_a_checkpoint_brings_back_random_numbers_scaler_and_gradients(tmp_path, distiller):
    partial_fc = PartialFC(ArcFace(), E, CLASSES)
    wrapped = nn.Module()
    wrapped.module = distiller
    trained = [*wrapped.parameters(), *partial_fc.parameters()]
    for i, parameter in enumerate(trained):
        parameter.grad = None if i % 2 else torch.full_like(parameter, float(i))
    state = cakd.run_state(wrapped, partial_fc, _amp(64.0))
    path = tmp_path / "checkpoint_gpu_1.pt"
    cakd.save({"global_step": 30, **state}, path)
    expected = _draws()
    gradients = [None if p.grad is None else p.grad.clone() for p in trained]
    for parameter in trained:
        parameter.grad = None

    amp = _amp(2.0)
    cfg = make_cfg(resume=True, output=str(tmp_path))
    cakd.resume(cfg, 1, wrapped, partial_fc, amp)
    assert _draws() == expected
    assert amp.get_scale() == 64.0
    for parameter, gradient in zip(trained, gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
        parameter.grad = None
    assert torch.load(path, weights_only=True)["cakd"]["gradients"] is not None
    assert cakd.run_state(wrapped, partial_fc, amp)["cakd"]["gradients"] is None


@pytest.mark.parametrize(("then", "now"), [(True, False), (False, True), (True, True)])
def test_half_a_step_goes_on_in_another_precision(tmp_path, distiller, then, now):
    """The host has a scaler either way, and scales by it in float16 alone."""
    partial_fc = PartialFC(ArcFace(), E, CLASSES)
    wrapped = nn.Module()
    wrapped.module = distiller
    trained = [*wrapped.parameters(), *partial_fc.parameters()]
    for parameter in trained:
        parameter.grad = torch.full_like(parameter, 64.0 if then else 1.0)
    state = cakd.run_state(wrapped, partial_fc, _amp(64.0), make_cfg(fp16=then))
    cakd.save({"global_step": 30, **state}, tmp_path / "checkpoint_gpu_1.pt")
    amp = _amp(2.0)
    cakd.resume(make_cfg(resume=True, output=str(tmp_path), fp16=now), 1, wrapped, partial_fc, amp)
    for parameter in trained:
        assert torch.equal(parameter.grad, torch.full_like(parameter, 64.0 if now else 1.0))
        parameter.grad = None


def test_a_checkpoint_of_an_unpatched_host_is_used_as_it_is(tmp_path, caplog):
    caplog.set_level("INFO")
    torch.save({"global_step": 3}, tmp_path / "checkpoint_gpu_0.pt")
    network, partial_fc = nn.Linear(1, 1), PartialFC(ArcFace(), E, CLASSES)
    before = torch.get_rng_state()
    cfg = make_cfg(resume=True, output=str(tmp_path))
    cakd.resume(cfg, 0, network, partial_fc, _amp(2.0))
    assert torch.equal(torch.get_rng_state(), before)
    assert "no random state" in caplog.text
    assert f"{tmp_path / 'checkpoint_gpu_0.pt'}: goes on after step 3" in caplog.text


def _checkpoint(folder, network, partial_fc, optimizer):
    """What the host saves, as far as it is checked."""
    content = {
        "global_step": 1,
        "state_dict_backbone": network.state_dict(),
        "state_dict_softmax_fc": partial_fc.state_dict(),
        "state_optimizer": optimizer.state_dict(),
    }
    torch.save(content, folder / "checkpoint_gpu_0.pt")


def _host_run(classes=CLASSES, optimizer=torch.optim.SGD, **changes):
    """backbone in its wrapper, Partial FC and optimiser, as ``train_v2.py`` holds them."""
    cfg = make_cfg(**changes)
    wrapped = nn.Module()
    wrapped.module = cakd.distill(get_model("r10_narrow", num_features=E), cfg)
    partial_fc = PartialFC(ArcFace(), E, classes)
    groups = [*cakd.parameter_groups(wrapped, cfg), {"params": partial_fc.parameters()}]
    return wrapped, partial_fc, optimizer(groups, lr=0.1)


@pytest.mark.parametrize(
    "then, now, words",
    [
        ({}, {}, None),
        ({"cakd": None}, {"cakd": None}, None),
        ({}, {"cakd": None}, ["anchoring", "missing", "cakd"]),
        ({"cakd": None}, {}, ["missing", "cakd"]),
        (
            {},
            {"classes": CLASSES + 1},
            ["6 class centres on rank 0, and this run 7", "init_weights"],
        ),
        ({}, {"optimizer": torch.optim.AdamW}, ["optimizer"]),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(tmp_path, capsys, then, now, words):
    network, partial_fc, optimizer = _host_run(**then)
    _checkpoint(tmp_path, network.module, partial_fc, optimizer)
    cfg = make_cfg(resume=True, output=str(tmp_path))
    if words is None:
        cakd.check_checkpoint(cfg, 0, *_host_run(**now))
        return
    with pytest.raises(SystemExit):
        cakd.check_checkpoint(cfg, 0, *_host_run(**now))
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and all(word in line for word in words), line


@pytest.mark.parametrize("damage", [None, b"", b"no checkpoint"])
def test_a_checkpoint_that_is_missing_or_damaged_is_one_line(tmp_path, capsys, damage):
    path = tmp_path / "checkpoint_gpu_0.pt"
    if damage is not None:
        path.write_bytes(damage)
    run = _host_run(cakd=None)
    cakd.check_checkpoint(make_cfg(output=str(tmp_path)), 0, *run)  # resume is off
    with pytest.raises(SystemExit):
        cakd.check_checkpoint(make_cfg(resume=True, output=str(tmp_path)), 0, *run)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and str(path) in line


def test_an_unknown_network_is_one_line(capsys):
    with pytest.raises(SystemExit):
        cakd.get_model("swin_minni", fp16=False)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "did you mean 'swin_mini'?" in line


def test_without_resume_nothing_is_read(tmp_path):
    cfg = make_cfg(output=str(tmp_path / "absent"))
    cakd.resume(cfg, 0, nn.Linear(1, 1), None, None)


def test_a_save_that_fails_leaves_the_former_file(tmp_path):
    path = tmp_path / "model.pt"
    cakd.save({"a": torch.ones(2)}, path)
    with pytest.raises(Exception, match="local object"):
        cakd.save({"a": lambda: None}, path)
    assert torch.equal(torch.load(path)["a"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize(("changes", "classes"), [({}, 6), ({"margin_weight": 0}, None), (None, 6)])
def test_model_json_says_what_the_run_learned_from(tmp_path, changes, classes):
    """Also where the host's Partial FC was shrunk, and for a plain network that is not ours."""
    cfg = make_cfg(rec=str(tmp_path / "faces"))
    cfg.cakd = None if changes is None else edict(cfg.cakd | changes)
    wrapped = nn.Module()
    wrapped.module = cakd.distill(HostNetwork(), cfg)
    loaders = edict(dataset=range(36)), object()
    for loader, images in zip(loaders, (36, None), strict=True):
        cakd.save_model(wrapped, cfg, loader, tmp_path / "model.pt")
        said = json.loads((tmp_path / "model.json").read_text())
        assert said["training_set"] == {"name": "faces", "images": images, "classes": classes}
        assert (said["network"], said["embedding_size"]) == ("r10_narrow", E)
    assert list(torch.load(tmp_path / "model.pt")) == list(HostNetwork().state_dict())


def test_a_full_disk_ends_the_host_with_one_line(tmp_path, capsys):
    wrapped = nn.Module()
    wrapped.module = nn.Linear(100, 100)
    with full_disk(1000), pytest.raises(SystemExit):
        cakd.save_model(wrapped, make_cfg(rec="faces", cakd=None), None, tmp_path / "model.pt")
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.pt cannot be written" in line and list(tmp_path.iterdir()) == []


class _Records:
    """A SummaryWriter and a wandb run that remember."""

    def __init__(self):
        self.scalars, self.logged = {}, []

    def add_scalar(self, tag, value, step):
        self.scalars[tag, step] = value

    def log(self, figures, commit=True):
        self.logged.append((figures, commit))


def test_terms_and_diagnostics_reach_log_line_tensorboard_and_wandb():
    torch.manual_seed(7)
    cfg = make_cfg(frequent=2)
    distiller = cakd.distill(HostNetwork(), cfg).train()
    callback, writer, run = edict(), _Records(), _Records()
    cakd.log_to(callback, distiller, writer, run)
    margins, cosines = [], []
    for step in range(1, 5):
        images, labels = batch(step)
        embeddings = distiller(images)
        margin = (embeddings**2).mean()
        pending = distiller._pending
        plain = 1 - nn.functional.cosine_similarity(
            pending.student.embedding, pending.unprompted.embedding
        )
        margins.append(float(margin.detach()))
        cosines.append(2.0 * float(plain.detach().mean()))
        cakd.total_loss(margin, distiller, labels, None)
    line = cakd.log_line(callback, "Loss 1", 4)
    assert line.startswith("Loss 1   margin ")
    assert writer.scalars["cakd/margin", 4] == pytest.approx(np.mean(margins[2:]), rel=1e-5)
    cosine = np.mean(cosines[2:])
    assert writer.scalars["cakd/embedding_cosine", 4] == pytest.approx(cosine, rel=1e-5)
    assert f"embedding_cosine {cosine:.4g}" in line
    names = {"margin", "embedding_cosine", "urfm_attention", "anchoring", "preservation"}
    names |= {"teacher_rank", "attended_rank", "constant_feature", "feature_ratio"}
    names |= {"lookup_variation", "prompted_cosine", "prompt_norm"}
    assert {tag for tag, _ in writer.scalars} == {f"cakd/{name}" for name in names}
    figures = {tag.replace("cakd/", "Distillation/"): v for (tag, _), v in writer.scalars.items()}
    assert run.logged == [(figures, False)]


def test_gradient_norms_come_with_every_tenth_line_and_disturb_nothing():
    images, labels = batch()

    def gradients(norms):
        torch.manual_seed(7)
        distiller = cakd.distill(HostNetwork(), make_cfg(frequent=1)).train()
        distiller.losses.steps_done = LINES_PER_NORMS - (1 if norms else 2)
        embeddings = distiller(images)
        cakd.total_loss(embeddings.square().mean(), distiller, labels, None).backward()
        return distiller, [p.grad for p in distiller.parameters()]

    with_norms, ours = gradients(True)
    without, theirs = gradients(False)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))
    found = {n for n in with_norms.figures if n.startswith("gradient_norm/")}
    assert found == {
        f"gradient_norm/{n}"
        for n in ("embedding_cosine", "urfm_attention", "anchoring", "preservation")
    }
    assert with_norms.figures["gradient_norm/embedding_cosine"] > 0
    assert with_norms.figures["gradient_norm/anchoring"] == 0  # it trains the teacher's side
    assert not any(n.startswith("gradient_norm/") for n in without.figures)


def test_get_model_builds_ours_with_the_host_s_arguments():
    network = cakd.get_model("swin_mini", dropout=0.0, fp16=True, num_features=8)
    assert network.embedding_size == 8 and network.amp_dtype is torch.float16


@pytest.fixture
def fallbacks(monkeypatch):
    """The functions of utils_cakd.py where arcface_cakd is not installed."""
    real_import = builtins.__import__

    def blocked(name, *args, **kwargs):
        if name.split(".")[0] == "arcface_cakd":
            raise ModuleNotFoundError("No module named 'arcface_cakd'", name="arcface_cakd")
        return real_import(name, *args, **kwargs)

    path = resource_dir("patches") / "utils_cakd.py"
    monkeypatch.setattr(builtins, "__import__", blocked)
    try:
        return runpy.run_path(str(path))
    finally:
        monkeypatch.undo()


def test_the_host_s_file_has_every_function_with_and_without_us(fallbacks):
    ours = runpy.run_path(str(resource_dir("patches") / "utils_cakd.py"))
    assert set(ours["__all__"]) == set(cakd.__all__) == set(fallbacks["__all__"])
    for name in cakd.__all__:
        assert ours[name] is getattr(cakd, name)
        assert fallbacks[name] is not ours[name]
        if name not in ("save", "get_model"):
            there, here = (
                list(inspect.signature(f).parameters) for f in (fallbacks[name], ours[name])
            )
            assert there == here, name


def test_without_us_plain_training_goes_on_and_distilling_stops(fallbacks, tmp_path):
    network, cfg = nn.Linear(2, 2), make_cfg(cakd=None)
    wrapped = nn.Module()
    wrapped.module = network
    loss, hook, loader = torch.tensor(1.0), object(), object()
    assert fallbacks["distill"](network, cfg) is network
    assert fallbacks["total_loss"](loss, wrapped, None, None) is loss
    assert fallbacks["comm_hook"](wrapped, hook) is hook
    assert fallbacks["student"](wrapped) is network
    assert fallbacks["faster_items"](loader, cfg) is loader
    assert fallbacks["run_state"](wrapped, None, None) == {}
    assert fallbacks["log_line"](None, "Loss 1", 1) == "Loss 1"
    assert fallbacks["resume"](cfg, 0, wrapped, None, None) is None
    assert fallbacks["log_to"](None, wrapped, None, None) is None
    assert fallbacks["check_teacher"](cfg, wrapped) is None
    assert fallbacks["save"] is torch.save
    fallbacks["save_model"](wrapped, cfg, loader, tmp_path / "model.pt")
    assert torch.equal(torch.load(tmp_path / "model.pt")["weight"], network.weight)
    (group,) = fallbacks["parameter_groups"](wrapped, cfg)
    assert len(list(group["params"])) == 2
    network.weight.grad = torch.full_like(network.weight, 10.0)
    assert float(fallbacks["clip_grad_norm"](wrapped, 5)) == pytest.approx(20.0)
    assert float(network.weight.grad.norm()) == pytest.approx(5.0, rel=1e-4)
    for key, changes in (("cakd", {}), ("init_weights", {"cakd": None, "init_weights": "w.pt"})):
        with pytest.raises(SystemExit, match=rf"config\.{key} needs arcface_cakd: install"):
            fallbacks["distill"](network, make_cfg(**changes))
    with pytest.raises(ValueError, match="swin_s"):
        fallbacks["get_model"]("swin_s", fp16=False)


def test_the_data_stand_in_needs_no_torch():
    import subprocess

    code = "import sys, arcface_cakd.arcface_torch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
