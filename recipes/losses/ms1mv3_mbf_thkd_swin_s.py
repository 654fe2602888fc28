"""MS1MV3: MobileFaceNet under the frozen class centres of ms1mv3_swin_s (TH-KD), on 8 GPUs.

HeadSharing (Ben-Baruch et al., arXiv 2201.06945) in its first version: the teacher's classifier,
frozen, is the student's. In the second it stands beside the student's own, which here is the loss
arcdistill with a margin_weight of 1. Its code has no faces; the embedding loss beside it and its
weight of 64 are ours, untested.
"""

from _cakd import cakd
from _rival import centers, config

config.init_centers = centers
config.freeze_centers = True
config.cakd.losses = cakd.losses[:1]
