"""WebFace4M: IResNet-50 with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

The settings are those of arcface_torch's wf4m_r50.
"""

from _wf4m import config

config.network = "r50"
