"""MS1MV3: MobileFaceNet with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

The settings are those of arcface_torch's ms1mv3_mbf.
"""

from _ms1mv3 import config

config.network = "mbf"
config.weight_decay = 1e-4
config.num_epoch = 40
