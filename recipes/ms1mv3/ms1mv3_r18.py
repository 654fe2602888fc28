"""MS1MV3: IResNet-18 with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

arcface_torch has no recipe for it on this set: the settings are those of its ms1mv3_r50.
"""

from _ms1mv3 import config

config.network = "r18"
