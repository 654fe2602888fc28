"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s and its centres by OFA-KD, on 8 GPUs.

eps 1.5 is that of the publication's ResNet-18 from a DeiT-T. The weight of 1 is ours, untested.
"""

from _rival import centers, config

config.cakd.teacher.centers = centers
config.cakd.losses = [dict(name="ofa_kd", weight=1.0, eps=1.5)]
