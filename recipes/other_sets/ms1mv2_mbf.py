"""MS1MV2: MobileFaceNet with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

The settings are those of arcface_torch's ms1mv2_mbf.
"""

from _ms1mv2 import config

config.network = "mbf"
config.weight_decay = 1e-4
config.num_epoch = 40
