"""Demo: the student without a teacher, the baseline of the two distilled ones."""

from _demo import config

config.network = "r10_narrow"
config.output = "cakd_demo/student"
config.optimizer = "sgd"
config.lr = 0.05
config.weight_decay = 5e-4
config.num_epoch = 1
config.warmup_epoch = 0.2
