"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s through embedding and URFM, on 8 GPUs.

The student's own settings (ArcFace, SGD, lr 0.1, weight decay 1e-4, 40 epochs, 8 x 128 images)
are those of arcface_torch's ms1mv3_mbf, the baseline to compare with.

URFM and alignment in attention and feature space are the paper's; the weights of the terms, the
embedding term and the anchoring are our choice, untested on real data. The paper's prompts (APT)
are in ms1mv3_mbf_cakd_swin_s_apt. Without them the teacher runs forward alone and keeps nothing for
gradients: a step needs about the memory of training the student, and that of the teacher's weights
and of one of its blocks at work (not measured).
"""

from _cakd import cakd
from ms1mv3_mbf import config

cakd.teacher.update(network="swin_s", weights="work_dirs/ms1mv3_swin_s/model.pt")
config.cakd = cakd
