"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s without anchoring or stop-gradient, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. Constant local features then minimise both alignment
losses: teacher_rank in the log says whether they become so.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.urfm.stop_gradient = False
config.cakd.anchoring = None
