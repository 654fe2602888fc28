"""How teachers are trained: CosFace's margin and the optimiser of arcface_torch's ViT recipes.

The lr of its wf42m_pfc03_40epoch_8gpu_vit_t is 1e-3 for 4096 images a step; 1024 images have half
of it, by the square-root rule that is usual for Adam. That all teachers here have the same is our
choice.
"""

from easydict import EasyDict as edict

teacher = edict(
    margin_list=(1.0, 0.0, 0.4),
    optimizer="adamw",
    lr=5e-4,
    weight_decay=0.1,
    warmup_epoch=2,
)
