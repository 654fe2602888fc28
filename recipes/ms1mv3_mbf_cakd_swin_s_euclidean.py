"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s with Euclidean distance, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. The position term knows distance in the image only.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.urfm.face_distance = None
