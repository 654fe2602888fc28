"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s without anchoring, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. With stop-gradient on, nothing then trains the teacher-
side mapping: it stays as it was drawn.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.anchoring = None
