"""WebFace42M: the teacher, a ViT-B trained with plain margin softmax, on 8 GPUs.

As ms1mv3_swin_s: CosFace's margin, AdamW, weight decay 0.1 and a warm-up over a tenth of the run
as in arcface_torch's ViT recipes; half the rate of its ViT-T's for 1024 images a step. The network
is vit_b_dp005_mask_005, which they take on this set, for 40 epochs and with 3/10 of the classes
a step.

The rate, the 20 epochs, the batch and 2/10 of the classes are our choice, untested on real data.
"""

from _teacher import teacher
from _wf42m import config

config.update(teacher)
config.network = "vit_b_dp005_mask_005"
