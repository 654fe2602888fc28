"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by hard embeddings and pairs, on 8 GPUs.

ILED and RPSD, at the weight of embedding_cosine; both that and the 1 inside are ours, untested: the
publication's were not to be had.
"""

from _rival import config

config.cakd.losses = [dict(name="iled_rpsd", weight=10.0)]
