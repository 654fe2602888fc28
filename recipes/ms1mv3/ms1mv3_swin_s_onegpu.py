"""MS1MV3: the teacher, a Swin-S trained with plain margin softmax, on 1 GPU.

As ms1mv3_swin_s, with an eighth of the images in a step (128) and eight times the steps. A
gradient of fewer images is noisier, so lr shrinks by the square root of 8, as is usual for Adam.

Besides what is said there, this rate is our choice, untested on real data. 128 images may not
fit into 24 GB (not measured): with 64, take 1.25e-4.
"""

from ms1mv3_swin_s import config

config.lr = 1.75e-4
