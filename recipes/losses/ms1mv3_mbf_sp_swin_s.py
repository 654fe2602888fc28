"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by similarity preservation, on 8 GPUs.

Weight from RepDistiller's scripts/run_cifar_distill.sh, 3000 for 64 images a batch; the value
falls with the batch, so 1024 images have 16 times as much. Untested here.
"""

from _rival import config

config.cakd.losses = [dict(name="sp", weight=48000.0)]
