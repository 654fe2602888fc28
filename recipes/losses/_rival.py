"""What the other distillation losses share: ms1mv3_mbf, and ms1mv3_swin_s as a teacher as it is.

Each recipe gives its loss. `centers` are for those that compare with the teacher's class centres.
"""

from easydict import EasyDict as edict
from ms1mv3_mbf import config

config.cakd = edict(
    teacher=edict(network="swin_s", weights="work_dirs/ms1mv3_swin_s/model.pt"),
    prompts=None,
    urfm=None,
)
centers = "work_dirs/ms1mv3_swin_s/checkpoint_gpu_*.pt"
