"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s and its centres by CosDistill, on 8 GPUs.

As in the publication it takes the place of the student's own margin softmax: margin_weight is 0,
and the class centres of that are of no use; its margin is 0.45. Weight 1: there is no other term.
The teacher's class centres come from its checkpoint_gpu_*.pt.
"""

from _rival import centers, config

config.cakd.teacher.centers = centers
config.cakd.losses = [dict(name="cosdistill", weight=1.0, margin=0.45)]
config.cakd.margin_weight = 0.0
