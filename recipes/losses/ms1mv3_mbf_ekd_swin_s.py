"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by EKD, on 8 GPUs.

The weights of both kinds of pairs are the publication's; the weight of 1 is ours, untested. Random
batches of 1024 images hold about six pairs of one identity here, where the publication's sampler
draws several images of each.
"""

from _rival import config

config.cakd.losses = [dict(name="ekd", weight=1.0)]
