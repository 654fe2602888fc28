"""What a loss says that it needs is what a distiller gives it, and no more."""

import pytest
import torch

from arcface_cakd.backbones import FaceBackbone, get_model
from arcface_cakd.config import ConfigError
from arcface_cakd.distiller import Distiller
from arcface_cakd.features import FaceFeatures
from arcface_cakd.partial_fc import ArcFace, PartialFC

CLASSES = 5
LABELS = torch.tensor([0, 3])


class EmbeddingsOnly(FaceBackbone):
    """A teacher as ``onnx:<file>`` is."""

    embedding_size = 16
    token_dim = None
    grid = None
    stage_dims = ()

    def forward_features(self, images, stages=False):
        embedding = images.mean((1, 2))[:, : self.embedding_size]
        return FaceFeatures(embedding, tokens=None, grid=None)

    def body(self, images):
        raise NotImplementedError

    def head(self, final):
        raise NotImplementedError


@pytest.fixture
def centers(tmp_path):
    path = tmp_path / "checkpoint_gpu_0.pt"
    weight = torch.randn(CLASSES, 16)
    torch.save({"state_dict_softmax_fc": {"weight": weight}, "global_step": 1}, path)
    return str(path)


def distiller(teacher, losses, centers, urfm=None):
    entry = {
        "teacher": {"network": "swin_mini", "weights": "random", "centers": centers},
        "prompts": None,
        "urfm": urfm,
        "losses": losses,
    }
    return Distiller(get_model("r10_narrow", num_features=16), teacher, entry, CLASSES).train()


def test_ofa_kd_learns_from_a_teacher_of_embeddings(centers):
    module = distiller(EmbeddingsOnly(), [{"name": "ofa_kd"}], centers)
    head = PartialFC(ArcFace(), 16, CLASSES)
    embedding = module(torch.rand(2, 3, 112, 112))
    loss = head(embedding, LABELS) * 0
    (term,) = module.terms(LABELS, head).values()
    (loss + term).backward()
    assert term.isfinite()
    exits = list(module.losses["ofa_kd"].parameters())
    student = [parameter for parameter in module.student.parameters() if parameter.requires_grad]
    for parameter in [*exits, *student, head.weight]:
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    assert all(parameter.grad.abs().sum() > 0 for parameter in exits)


@pytest.mark.parametrize(
    ("losses", "of_student", "of_teacher"),
    [
        (["embedding_cosine"], False, False),
        (["embedding_cosine", "ofa_kd"], True, False),
        (["ofa_kd", "reviewkd"], True, True),
    ],
)
def test_stages_are_those_of_the_side_that_needs_them(centers, losses, of_student, of_teacher):
    teacher = get_model("swin_mini", num_features=16)
    module = distiller(teacher, [{"name": name} for name in losses], centers)
    student, teacher, _ = module.features(torch.rand(2, 3, 112, 112))
    assert (bool(student.stages), bool(teacher.stages)) == (of_student, of_teacher)


def test_attention_of_one_local_centre_is_refused(centers):
    teacher = get_model("swin_mini", num_features=16)
    urfm = {"num_centers": 1, "num_heads": 2}
    with pytest.raises(ConfigError, match="urfm_attention: with one local centre"):
        distiller(teacher, [{"name": "urfm_attention"}], centers, urfm)
    module = distiller(teacher, [{"name": "urfm_feature"}], centers, urfm)
    module(torch.rand(2, 3, 112, 112))
    assert module.terms(LABELS)["urfm_feature"] > 0
