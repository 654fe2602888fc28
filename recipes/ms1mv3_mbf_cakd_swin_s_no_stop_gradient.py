"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s without stop-gradient, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. The alignment losses also move the teacher-side mapping
and the shared MSA.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.urfm.stop_gradient = False
