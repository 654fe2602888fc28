"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by FitNets' hints, on 8 GPUs.

Weight from RepDistiller's scripts/run_cifar_distill.sh, on CIFAR-100; untested here.
"""

from _rival import config

config.cakd.losses = [dict(name="fitnet", weight=100.0)]
