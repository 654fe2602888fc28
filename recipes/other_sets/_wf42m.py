"""What the runs on WebFace42M share: its size, CosFace's margin and a fifth of the classes a step.

All are those of arcface_torch's wf42m_pfc02_r100, as are 8 x 128 images a step at lr 0.1.
"""

from _arcface_torch import config

config.margin_list = (1.0, 0.0, 0.4)
config.sample_rate = 0.2
config.verbose = 10000
config.rec = "/train_tmp/WebFace42M"
config.num_classes = 2059906
config.num_image = 42474557
config.num_epoch = 20
config.warmup_epoch = 0
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]
