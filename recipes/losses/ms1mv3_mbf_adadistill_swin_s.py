"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by AdaDistill, on 8 GPUs.

As in the publication it takes the place of the student's own margin softmax: margin_weight is 0,
and the class centres of that are of no use. Weight 1: there is no other term. Centres start at
random and move: the teacher's are not needed.
"""

from _rival import config

config.cakd.losses = [dict(name="adadistill", weight=1.0)]
config.cakd.margin_weight = 0.0
