"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by VID, on 8 GPUs.

Weight from RepDistiller's scripts/run_cifar_distill.sh, on CIFAR-100; untested here.
Its gradient on a fresh student is far below the margin softmax's: as published, it may teach next
to nothing here: watch the gradient norms in the log.
"""

from _rival import config

config.cakd.losses = [dict(name="vid", weight=1.0)]
