"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s with 16 prompts a stage, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.prompts.num_tokens = 16
