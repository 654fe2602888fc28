"""What the runs on MS1MV3 share; its size is that of arcface_torch's recipes."""

from _arcface_torch import config

config.rec = "/train_tmp/ms1m-retinaface-t1"
config.num_classes = 93431
config.num_image = 5179510
config.num_epoch = 20
config.warmup_epoch = 0
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]
