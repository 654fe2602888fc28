"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by Liu et al.'s projectors, on 8 GPUs.

The weight of 1 is ours, untested.
"""

from _rival import config

config.cakd.losses = [dict(name="cakd_liu", weight=1.0)]
