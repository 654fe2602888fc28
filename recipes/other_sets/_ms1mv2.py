"""What the runs on MS1MV2 share; its size is that of arcface_torch's recipes."""

from _arcface_torch import config

config.rec = "/train_tmp/faces_emore"
config.num_classes = 85742
config.num_image = 5822653
config.num_epoch = 20
config.warmup_epoch = 0
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]
