"""MS1MV3: IResNet-50 with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

The settings are those of arcface_torch's ms1mv3_r50.
"""

from _ms1mv3 import config

config.network = "r50"
