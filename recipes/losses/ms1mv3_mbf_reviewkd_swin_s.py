"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by ReviewKD, on 8 GPUs.

A warm-up over a twelfth of the run (20 of 240 epochs) is mdistiller's. The weight is ours,
untested: theirs, 5 between two ResNets, goes with maps of BatchNorm's scale, and a Swin's residual
stream is larger.
"""

from _rival import config

config.cakd.losses = [dict(name="reviewkd", weight=1.0, schedule=dict(kind="warmup", steps=16860))]
