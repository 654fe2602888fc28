"""Glint360K: IResNet-50 with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

The settings are those of arcface_torch's glint360k_r50.
"""

from _glint360k import config

config.network = "r50"
