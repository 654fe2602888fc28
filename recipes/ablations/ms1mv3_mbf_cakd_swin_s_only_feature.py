"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s with feature alignment alone, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. The embedding loss alone is in
ms1mv3_mbf_embedding_cosine_swin_s.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.losses = config.cakd.losses[1:2]
