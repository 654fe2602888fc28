"""Glint360K: the teacher, a Swin-S trained with plain margin softmax, on 8 GPUs.

As ms1mv3_swin_s: CosFace's margin, AdamW, weight decay 0.1 and a warm-up over a tenth of the run
as in arcface_torch's ViT recipes; half the rate of its ViT-T's for 1024 images a step.

The rate, the epochs and the batch are our choice, untested on real data.
"""

from _glint360k import config
from _teacher import teacher

config.update(teacher)
config.network = "swin_s"
