"""MS1MV2: IResNet-50 with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

The settings are those of arcface_torch's ms1mv2_r50.
"""

from _ms1mv2 import config

config.network = "r50"
