"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by the embedding alone, on 8 GPUs.

The weight is that of the same term in ms1mv3_mbf_cakd_swin_s: ours, untested. Without URFM it is
what the method must beat.
"""

from _cakd import cakd
from _rival import config

config.cakd.losses = cakd.losses[:1]
