"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s with prompts, without URFM, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s_apt, but for this. The embedding loss is left alone, and compares with the
prompted teacher, so that the prompts learn from it. Without prompts it would be
ms1mv3_mbf_embedding_cosine_swin_s.
"""

from ms1mv3_mbf_cakd_swin_s_apt import config

config.cakd.urfm = None
config.cakd.anchoring = None
config.cakd.losses = config.cakd.losses[:1]
config.cakd.output_target = "prompted"
