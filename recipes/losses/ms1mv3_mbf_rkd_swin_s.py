"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by RKD, on 8 GPUs.

The weights of distances and angles, 25 and 50, are the loss's own, and its weight of 1 is that of
RepDistiller's scripts/run_cifar_distill.sh; untested here. The angles take the cube of the 1024
images, element by element, which a count of products does not show.
"""

from _rival import config

config.cakd.losses = [dict(name="rkd", weight=1.0)]
