"""What the runs on CASIA-WebFace share: its size, and 8 x 64 images a step for 40 epochs.

The set is insightface's cleaned one, faces_webface_112x112: 10572 identities and 490623 images.
Configs that say 501195, such as ElasticFace's, count one more record for each identity, which its
file holds besides the images. 512 images a step, lr 0.1 and 40 epochs are ElasticFace's on this
set (fdbtrs/ElasticFace, config/config.py); arcface_torch has no recipe for it.
"""

from _arcface_torch import config

config.batch_size = 64
config.rec = "/train_tmp/faces_webface_112x112"
config.num_classes = 10572
config.num_image = 490623
config.num_epoch = 40
config.warmup_epoch = 0
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]
