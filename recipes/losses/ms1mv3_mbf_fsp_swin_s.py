"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by FSP, on 8 GPUs.

Weight from RepDistiller's scripts/run_cifar_distill.sh, on CIFAR-100; untested here. Learned
projections bring the student's stages to the teacher's widths.
"""

from _rival import config

config.cakd.losses = [dict(name="fsp", weight=50.0, projection=True)]
