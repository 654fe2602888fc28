"""Glint360K: MobileFaceNet with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

The settings are those of arcface_torch's glint360k_mbf.
"""

from _glint360k import config

config.network = "mbf"
