"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s with positions in the query, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. This is the paper's form, under which permuting the
patches changes nothing.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.urfm.position = "query"
