"""CASIA-WebFace: the teacher, a Swin-S trained with plain margin softmax, on 8 GPUs.

As ms1mv3_swin_s: CosFace's margin, AdamW, weight decay 0.1 and a warm-up over a tenth of the run
as in arcface_torch's ViT recipes, and their rate scaled by the square root to 512 images a step.

The rate, the epochs and the batch are our choice, untested on real data.
"""

from _casia import config
from _teacher import teacher

config.update(teacher)
config.network = "swin_s"
config.lr = 3.5e-4
config.warmup_epoch = 4
