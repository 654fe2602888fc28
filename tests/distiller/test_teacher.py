"""The teacher in a Distiller: what it runs in and when, and what it may be."""

import copy
import logging

import pytest
import torch
from helpers.distillers import LABELS, SMALL_URFM, TEACHER, make
from torch.nn import functional as F

from arcface_cakd.backbones import build_teacher, get_model
from arcface_cakd.config import CakdConfig, ConfigError
from arcface_cakd.distiller import Distiller
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.export import export_model
from arcface_cakd.losses import DistillationLoss
from arcface_cakd.prompting import PromptingError
from arcface_cakd.registry import LOSSES


def test_the_teacher_is_no_part_of_it_but_follows(images):
    distiller = make()
    assert not any("teacher.trunk" in name for name in distiller.state_dict())
    own = {id(p) for p in distiller.parameters()}
    assert not own & {id(p) for p in distiller.teacher.parameters()}
    distiller.double()
    assert {p.dtype for p in distiller.teacher.parameters()} == {torch.float64}
    distiller.train()
    assert not distiller.teacher.training


def test_without_prompts_the_teacher_runs_once_without_a_graph(images, monkeypatch):
    distiller = make(prompts=None, urfm=None)
    assert distiller.prompts is None and distiller.urfm is None
    runs = []
    plain = distiller.teacher.forward_features
    monkeypatch.setattr(
        distiller.teacher,
        "forward_features",
        lambda *args, **kwargs: runs.append(torch.is_grad_enabled()) or plain(*args, **kwargs),
    )
    distiller(images)
    assert list(distiller.terms(LABELS)) == ["embedding_cosine"]
    assert runs == [False]


def test_precision_reaches_both_networks(images):
    distiller = make()
    distiller.amp_dtype = torch.bfloat16
    assert distiller.teacher.amp_dtype is torch.bfloat16
    assert distiller(images).dtype is torch.float32
    terms = distiller.terms(LABELS)
    assert {term.dtype for term in terms.values()} == {torch.float32}
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in distiller.prompts.parameters())


def test_a_teacher_that_no_step_runs_takes_no_memory(images):
    one, other = make(prompts=None), make(prompts=None)
    with torch.no_grad():
        known = one.teacher.forward_features(images)
    other.drop_teacher()
    assert all(p.is_meta for p in other.teacher.parameters())
    terms = []
    for distiller in (one, other):
        torch.manual_seed(0)  # anchoring leaves out centres at random
        distiller(images, None, known)
        terms.append(distiller.terms(LABELS))
    assert terms[0] == terms[1]
    other.to(torch.float64).to(torch.float32)
    other.drop_teacher()
    other.eval()
    assert torch.equal(other(images), one.student.eval()(images))
    with pytest.raises(RuntimeError, match="the teacher's weights were dropped"):
        other.train()(images)
    prompted = make()
    prompted.drop_teacher()
    prompted(images)


@pytest.mark.parametrize("run", [None, torch.float16])
def test_the_teachers_own_precision_is_its_alone(images, run):
    distiller = make(teacher={**TEACHER, "bf16": True}, prompts=None)
    reference = copy.deepcopy(distiller.teacher)
    reference.amp_dtype = torch.bfloat16
    distiller.amp_dtype = run
    assert distiller.amp_dtype is distiller.student.amp_dtype is run
    said = reference.forward_features(images)
    _, teacher, _ = distiller.features(images)
    assert torch.equal(teacher.embedding, said.embedding)
    assert torch.equal(teacher.tokens, said.tokens)
    reference.amp_dtype = None
    assert not torch.equal(teacher.embedding, reference.forward_features(images).embedding)
    built = build_teacher(32, **TEACHER, bf16=True)
    assert built.amp_dtype is torch.bfloat16
    assert build_teacher(32, **TEACHER).amp_dtype is None


def test_a_precision_of_the_teachers_own_that_the_run_has_is_said(caplog):
    distiller = make(teacher={**TEACHER, "bf16": True})
    distiller.amp_dtype = torch.bfloat16
    distiller.announce(logging.getLogger("test"))
    assert "cakd.teacher.bf16=True has no effect" in caplog.text


def test_a_cnn_teacher_teaches_through_urfm_and_takes_no_prompts(images, tmp_path):
    torch.manual_seed(0)
    teacher = get_model("r18", num_features=32)
    entry = {"teacher": {"network": "r18", "weights": "random"}, "urfm": SMALL_URFM}
    student = get_model("r10_narrow", num_features=32)
    with pytest.raises(PromptingError, match=r"IResNet is neither.*cakd\.prompts=None") as error:
        Distiller(student, teacher, {**entry, "prompts": {}})
    assert "\n" not in str(error.value)
    distiller = Distiller(student, teacher, entry).train()
    statistics = copy.deepcopy(teacher.state_dict())
    distiller(images)
    terms = distiller.terms(LABELS)
    assert list(terms) == ["embedding_cosine", "urfm_feature", "urfm_attention", "anchoring"]
    sum(terms.values()).backward()
    for part in (distiller.student, distiller.urfm.student):
        assert all(p.grad.isfinite().all() for p in part.parameters() if p.requires_grad)
        assert any(p.grad.abs().sum() > 0 for p in part.parameters() if p.requires_grad)
    assert all(p.grad is None for p in teacher.parameters())
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, statistics[key]), key
    with torch.no_grad():
        wanted = 1 - F.cosine_similarity(student.train()(images), teacher.eval()(images)).mean()
    expected = 64 * float(wanted)
    assert float(terms["embedding_cosine"].detach()) == pytest.approx(expected, rel=1e-4)


class Seen(DistillationLoss):
    """Needs tokens by a setting only."""

    def __init__(self, dims, *, tokens: bool = True):
        super().__init__(dims)
        self.needs = frozenset({"tokens"} if tokens else ())

    def forward(self, student, teacher, batch):
        assert teacher.tokens is None and self.dims.teacher_tokens is None
        return (student.embedding - teacher.embedding).abs().mean()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "teacher.onnx"
    torch.manual_seed(3)
    network = get_model("r10_narrow", num_features=32)
    export_model(network, path)
    return path, network.eval()


class TestEmbeddingsOnly:
    def make(self, file, **entry):
        entry = {"teacher": {"network": f"onnx:{file[0]}"}, **entry}
        teacher = build_teacher(512, **CakdConfig.from_entry(entry).teacher)
        return Distiller(get_model("r10_narrow", num_features=32), teacher, entry).train()

    def test_it_teaches_its_embedding(self, file, images, monkeypatch):
        monkeypatch.setattr(LOSSES, "_components", {**LOSSES._components, "seen": Seen})
        losses = [{"name": "embedding_cosine", "weight": 2.0}, {"name": "seen", "tokens": False}]
        distiller = self.make(file, prompts=None, urfm=None, losses=losses)
        embedding = distiller(images)
        terms = distiller.terms(LABELS)
        with torch.no_grad():
            wanted = file[1](images)
        cosine = 2 * (1 - F.cosine_similarity(embedding, wanted).mean())
        assert terms["embedding_cosine"].item() == pytest.approx(cosine.item(), rel=1e-4)
        apart = (embedding - wanted).abs().mean()
        assert terms["seen"].item() == pytest.approx(apart.item(), rel=1e-3)
        sum(terms.values()).backward()
        student = list(distiller.student.parameters())
        assert all(p.grad.isfinite().all() for p in student if p.requires_grad)
        (group,) = distiller.parameter_groups(0.1, 0.0)
        assert group["name"] == "student"
        distiller.amp_dtype = torch.bfloat16
        assert distiller(images).dtype is torch.float32
        assert torch.allclose(distiller._pending.teacher.embedding, wanted, atol=1e-4)

    @pytest.mark.parametrize(
        "entry, advice",
        [
            (
                {},
                "set cakd.urfm=None, leave out of cakd.losses 'urfm_feature', 'urfm_attention', or",
            ),
            (
                {"prompts": {}},
                "set cakd.prompts=None and cakd.urfm=None, leave out of cakd.losses "
                "'urfm_feature', 'urfm_attention', or",
            ),
            ({"urfm": None, "prompts": {}}, "set cakd.prompts=None, or"),
            (
                {"prompts": None, "losses": [{"name": "embedding_cosine"}], "urfm": {}},
                "set cakd.urfm=None, or",
            ),
            (
                {"prompts": None, "urfm": None, "losses": [{"name": "urfm_feature"}]},
                "leave out of cakd.losses 'urfm_feature', or",
            ),
            (
                {"prompts": None, "urfm": None, "losses": [{"name": "seen"}]},
                "leave out of cakd.losses 'seen', or",
            ),
        ],
    )
    def test_what_needs_more_is_refused(self, file, entry, advice, monkeypatch):
        monkeypatch.setattr(LOSSES, "_components", {**LOSSES._components, "seen": Seen})
        with pytest.raises(ConfigError) as error:
            self.make(file, **entry)
        line = str(error.value)
        assert line.startswith(f"the teacher 'onnx:{file[0]}' gives embeddings only")
        assert f": {advice} take a teacher" in line and "\n" not in line

    def test_every_loss_either_runs_on_it_or_says_what_it_needs(self, file):
        for name in LOSSES.names():
            entry = {"losses": [{"name": name}], "prompts": None, "urfm": None}
            try:
                self.make(file, **entry)
            except ArcfaceCakdError as error:
                assert "\n" not in str(error)
                needs = LOSSES.get(name).needs
                if needs & {"tokens", "stages", "alignment"}:
                    assert f"cakd.losses {name!r}" in str(error)
                else:
                    assert "centers" in needs or "num_classes" in str(error), name


def test_margin_preservation_needs_the_teachers_centres(images, tmp_path):
    with pytest.raises(ConfigError, match=r"set cakd\.teacher\.centers"):
        make(preservation={"kind": "margin"})
    torch.manual_seed(3)
    shards = torch.randn(3, 32).split(2)
    for i, shard in enumerate(shards):
        state = {"state_dict_softmax_fc": {"weight": shard}}
        torch.save(state, tmp_path / f"checkpoint_gpu_{i}.pt")
    teacher = {**TEACHER, "centers": str(tmp_path / "checkpoint_gpu_*.pt")}
    distiller = make(teacher=teacher, preservation={"kind": "margin", "weight": 0.5})
    distiller(images)
    kept = distiller.terms(LABELS)["preservation"]
    with torch.no_grad():
        embedding = distiller.prompts(distiller.teacher, images).embedding.double()
    cosines = F.normalize(embedding) @ F.normalize(torch.cat(shards).double()).T
    rows = torch.arange(4)
    cosines[rows, LABELS] = torch.cos(torch.arccos(cosines[rows, LABELS]) + 0.5)
    assert float(kept.detach()) == pytest.approx(
        0.5 * float(F.cross_entropy(64 * cosines, LABELS)), rel=1e-4
    )
    kept.backward()
    assert all(p.grad.abs().sum() > 0 for p in distiller.prompts.parameters())


@pytest.mark.parametrize("shape", [(3, 16), (5, 32)])
def test_centres_of_another_training_set_or_teacher_are_refused(tmp_path, shape):
    state = {"state_dict_softmax_fc": {"weight": torch.randn(shape)}}
    torch.save(state, tmp_path / "checkpoint_gpu_0.pt")
    teacher = {**TEACHER, "centers": str(tmp_path / "checkpoint_gpu_*.pt")}
    with pytest.raises(ConfigError, match=r"class centres, but .* need \(3, 32\)"):
        make(teacher=teacher, preservation={"kind": "margin"}, num_classes=3)
