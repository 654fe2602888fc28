"""Demo: the student distilled by the whole method (URFM, APT, alignment losses)."""

from demo_student import config
from easydict import EasyDict as edict

config.output = "cakd_demo/cakd"
config.cakd = edict(
    teacher=edict(network="swin_mini", weights="cakd_demo/teacher/model.pt"),
    prompts=edict(num_tokens=4),
    urfm=edict(num_centers=49),
    losses=[
        edict(name="embedding_cosine", weight=64.0),
        edict(name="urfm_feature", weight=50.0),
        edict(name="urfm_attention", weight=1.0),
    ],
    # So few steps of SGD would leave attention modules where they started.
    lr_scale=edict(prompts=10.0, urfm=10.0),
)
