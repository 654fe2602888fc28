"""Demo: the teacher, a small Swin trained with plain margin softmax."""

from _demo import config

config.network = "swin_mini"
config.output = "cakd_demo/teacher"
config.optimizer = "adamw"
config.lr = 1e-3
config.weight_decay = 0.05
config.num_epoch = 6
config.warmup_epoch = 0.5
