"""Glint360K: IResNet-18 with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

arcface_torch has no recipe for it on this set: the settings are those of its glint360k_r50.
"""

from _glint360k import config

config.network = "r18"
