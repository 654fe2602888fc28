"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by CRD, on 8 GPUs.

Weight from RepDistiller's scripts/run_cifar_distill.sh, on CIFAR-100; untested here. The queue
holds its 16384 negatives.
"""

from _rival import config

config.cakd.losses = [dict(name="crd", weight=0.8)]
