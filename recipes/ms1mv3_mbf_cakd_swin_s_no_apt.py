"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s without APT, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. The teacher goes unprompted, so no gradient passes through
it and one forward pass of it is enough.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.prompts = None
