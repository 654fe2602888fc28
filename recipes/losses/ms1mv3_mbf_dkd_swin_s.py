"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s and its centres by DKD, on 8 GPUs.

alpha 1, beta 8, T = 4 and a warm-up over a twelfth of the run (20 of 240 epochs) are mdistiller's,
on CIFAR-100; untested here.
"""

from _rival import centers, config

config.cakd.teacher.centers = centers
config.cakd.losses = [dict(name="dkd", weight=1.0, schedule=dict(kind="warmup", steps=16860))]
