"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s without the embedding loss, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. The embedding term may not be the paper's.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.losses = config.cakd.losses[1:]
