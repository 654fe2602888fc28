"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s with prompts in the last stage, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. The stages before run without gradient. Stages count from
0.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.prompts.places = (3,)
