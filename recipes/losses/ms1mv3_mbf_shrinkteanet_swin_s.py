"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by ShrinkTeaNet's angular loss, on 8 GPUs.

The weight of 64, that of embedding_cosine, is ours, untested.
"""

from _rival import config

config.cakd.losses = [dict(name="shrinkteanet", weight=64.0)]
