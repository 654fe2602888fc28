"""What the runs on WebFace4M share: its size and CosFace's margin, as in arcface_torch."""

from _arcface_torch import config

config.margin_list = (1.0, 0.0, 0.4)
config.rec = "/train_tmp/WebFace4M"
config.num_classes = 205990
config.num_image = 4235242
config.num_epoch = 20
config.warmup_epoch = 0
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]
