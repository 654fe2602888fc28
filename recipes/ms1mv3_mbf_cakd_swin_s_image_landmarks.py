"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by each image's landmarks, on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this. The five landmarks of every image must lie beside
train.rec, in train_landmarks.npy or CVLface's ldmk_5points.csv.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.urfm.landmarks = "image"
