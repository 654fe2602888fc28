"""Demo: the student distilled through the embedding alone (1 - cosine)."""

from _cakd import cakd
from demo_student import config
from easydict import EasyDict as edict

config.output = "cakd_demo/embedding"
config.cakd = edict(
    teacher=edict(network="swin_mini", weights="cakd_demo/teacher/model.pt"),
    prompts=None,
    urfm=None,
    losses=cakd.losses[:1],
)
