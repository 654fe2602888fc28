"""CASIA-WebFace: MobileFaceNet with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

arcface_torch has no recipe for this set: batch, lr and epochs are ElasticFace's on it, the decay
of the rate arcface_torch's, the weight decay that of its other recipes for this network.
"""

from _casia import config

config.network = "mbf"
config.weight_decay = 1e-4
