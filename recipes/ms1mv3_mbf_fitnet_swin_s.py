"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by FitNets' hints, on 8 GPUs.

The weight is ours, untested: RepDistiller's scripts/run_cifar_distill.sh has 100, which on a
Transformer's normalised tokens, whose power is about 1, may drown the margin softmax.
"""

from _rival import config

config.cakd.losses = [dict(name="fitnet", weight=1.0)]
