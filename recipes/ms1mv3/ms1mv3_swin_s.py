"""MS1MV3: the teacher, a Swin-S trained with plain margin softmax, on 8 GPUs.

CosFace's margin, AdamW, weight decay 0.1 and a warm-up over a tenth of the run are those of
arcface_torch's ViT recipes. The rate of its ViT-T's is 1e-3 for 4096 images a step; here a step has
8 x 128 = 1024, and lr is halved, by the square-root rule that is usual for Adam.

The rate, the 20 epochs and the batch are our choice, untested on real data. 128 images are meant
for GPUs of 80 GB; how much memory they take was not measured.
"""

from _ms1mv3 import config
from _teacher import teacher

config.update(teacher)
config.network = "swin_s"
