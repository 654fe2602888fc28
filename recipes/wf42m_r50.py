"""WebFace42M: IResNet-50 with plain margin softmax, the distilled ones' baseline, on 8 GPUs.

Batch, lr 0.1 and the share of classes are those of arcface_torch's wf42m_pfc02_r100, the weight
decay that of its wf42m_pfc02_8gpus_r50_bs4k, which takes more images a step at a higher rate
after 2 epochs of warm-up.
"""

from _wf42m import config

config.network = "r50"
