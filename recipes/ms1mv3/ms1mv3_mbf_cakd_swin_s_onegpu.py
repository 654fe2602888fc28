"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s_onegpu through embedding and URFM, on 1 GPU.

As ms1mv3_mbf_cakd_swin_s, with an eighth of the images in a step (128) and eight times the steps.
With as large a step on each noisier gradient, SGD would wander further, so lr shrinks: to 0.02,
which arcface_torch's own ms1mv3_r50_onegpu takes for the same batch. That it suits distilling is
our guess, untested on real data.

Whether 128 images fit into 24 GB was not measured: with 64, take lr 0.01.
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.teacher.weights = "work_dirs/ms1mv3_swin_s_onegpu/model.pt"
config.lr = 0.02
