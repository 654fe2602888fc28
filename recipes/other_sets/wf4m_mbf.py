"""WebFace4M: MobileFaceNet with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

The settings are those of arcface_torch's wf4m_mbf.
"""

from _wf4m import config

config.network = "mbf"
config.weight_decay = 1e-4
