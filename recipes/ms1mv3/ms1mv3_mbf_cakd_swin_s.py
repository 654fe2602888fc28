"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by the whole method, on 8 GPUs.

The student's own settings (ArcFace, SGD, lr 0.1, weight decay 1e-4, 40 epochs, 8 x 128 images)
are those of arcface_torch's ms1mv3_mbf, the baseline to compare with.

The method (URFM, APT, alignment in attention and feature space) is the paper's; the weights of
the terms, the embedding term, the number of prompts and the anchoring are our choice, untested
on real data. Gradients pass through the teacher to its prompts: a step needs about the memory of
training the teacher (not measured; meant for GPUs of 80 GB).
"""

from _cakd import cakd
from ms1mv3_mbf import config

cakd.teacher.update(network="swin_s", weights="work_dirs/ms1mv3_swin_s/model.pt")
config.cakd = cakd
