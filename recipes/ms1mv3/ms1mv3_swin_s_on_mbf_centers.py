"""MS1MV3: ms1mv3_swin_s under the frozen class centres of ms1mv3_mbf (SH-KD), on 8 GPUs.

A teacher for ms1mv3_mbf_shkd_swin_s, and the first stage of HeadSharing's student head
(Ben-Baruch et al., arXiv 2201.06945): it is trained to fit what a plain student has learned. That a
Swin under CosFace meets centres that were learned under ArcFace is ours, untested.
"""

from ms1mv3_swin_s import config

config.init_centers = "work_dirs/ms1mv3_mbf/checkpoint_gpu_*.pt"
config.freeze_centers = True
