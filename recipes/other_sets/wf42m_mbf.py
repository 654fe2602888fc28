"""WebFace42M: MobileFaceNet with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

Batch, lr 0.1 and the share of classes are those of arcface_torch's wf42m_pfc02_r100, the weight
decay that of its wf42m_pfc02_16gpus_mbf_bs8k, which takes more images a step at a higher rate
after 2 epochs of warm-up.
"""

from _wf42m import config

config.network = "mbf"
config.weight_decay = 1e-4
