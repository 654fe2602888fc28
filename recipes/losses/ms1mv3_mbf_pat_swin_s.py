"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by PAT's region attention, on 8 GPUs.

The weight of 1 and 16 regions of width 512 a stage are its code's, of ImageNet; untested here.
Without its prompts.
"""

from _rival import config

config.cakd.losses = [dict(name="pat", weight=1.0)]
