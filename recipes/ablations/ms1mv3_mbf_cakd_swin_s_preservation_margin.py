"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s held to its centres, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s_apt, but for this. The prompted teacher is held to its own class centres;
the weight is ours, untested.
"""

from ms1mv3_mbf_cakd_swin_s_apt import config

config.cakd.preservation = dict(kind="margin", weight=0.1)
config.cakd.teacher.centers = "work_dirs/ms1mv3_swin_s/checkpoint_gpu_*.pt"
