"""What the runs on Glint360K share: its size, CosFace's margin and the weight decay.

All three are those of arcface_torch's recipes.
"""

from _arcface_torch import config

config.margin_list = (1.0, 0.0, 0.4)
config.weight_decay = 1e-4
config.rec = "/train_tmp/glint360k"
config.num_classes = 360232
config.num_image = 17091657
config.num_epoch = 20
config.warmup_epoch = 0
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]
