"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s with preservation, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. The prompted teacher is held to its unprompted embedding;
the weight is ours, untested.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.preservation = dict(kind="embedding", weight=1.0)
