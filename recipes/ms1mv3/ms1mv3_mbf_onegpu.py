"""MS1MV3: MobileFaceNet with plain margin softmax, the distilled one's baseline, on 1 GPU.

As ms1mv3_mbf, with an eighth of the images in a step (128) and eight times the steps, at the lr of
arcface_torch's ms1mv3_r50_onegpu.
"""

from ms1mv3_mbf import config

config.lr = 0.02
