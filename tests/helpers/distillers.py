"""A Distiller of small networks, and labels of a batch for it."""

import torch

from arcface_cakd.backbones import get_model
from arcface_cakd.config import CakdConfig
from arcface_cakd.distiller import Distiller

TEACHER = {"network": "swin_mini", "weights": "random"}
SMALL_URFM = {"num_centers": 9, "num_heads": 2}
LABELS = torch.tensor([0, 1, 2, 0])


def make(seed=0, student_width=32, teacher_width=32, num_classes=None, run_steps=40, **entry):
    torch.manual_seed(seed)
    student = get_model("r10_narrow", num_features=student_width)
    teacher = get_model("swin_mini", num_features=teacher_width)
    entry = {"teacher": TEACHER, "prompts": {"num_tokens": 2}, "urfm": SMALL_URFM, **entry}
    return Distiller(student, teacher, CakdConfig.from_entry(entry), num_classes, run_steps).train()
