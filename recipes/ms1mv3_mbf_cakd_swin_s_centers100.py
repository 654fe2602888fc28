"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s with 100 local centres, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. They lie on a grid of 10 x 10.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.urfm.num_centers = 100
