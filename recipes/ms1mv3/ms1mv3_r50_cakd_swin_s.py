"""MS1MV3: IResNet-50 distilled from ms1mv3_swin_s through embedding and URFM, on 8 GPUs.

The student's own settings (ArcFace, SGD, lr 0.1, weight decay 5e-4, 20 epochs, 8 x 128 images)
are those of arcface_torch's ms1mv3_r50, the baseline to compare with.

URFM and alignment in attention and feature space are the paper's; the weights of the terms, the
embedding term and the anchoring are our choice, untested on real data. There are no prompts (APT)
unless cakd.prompts asks for some, so the teacher runs forward alone and keeps nothing for
gradients: a step needs about the memory of training the student, and that of the teacher's weights
and of one of its blocks at work (not measured).
"""

from _cakd import cakd
from ms1mv3_r50 import config

cakd.teacher.update(network="swin_s", weights="work_dirs/ms1mv3_swin_s/model.pt")
config.cakd = cakd
