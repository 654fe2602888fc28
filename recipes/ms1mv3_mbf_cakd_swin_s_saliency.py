"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s with saliency distance, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. The facial distance is the paper's SD in our form.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.urfm.face_distance = "saliency"
