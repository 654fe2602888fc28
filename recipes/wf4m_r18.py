"""WebFace4M: IResNet-18 with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

arcface_torch has no recipe for it on this set: the settings are those of its wf4m_r50.
"""

from _wf4m import config

config.network = "r18"
