"""What the four runs of the demo share: made faces, CPU-sized networks, one seed."""

from easydict import EasyDict as edict

config = edict()
config.rec = "cakd_demo/data"
config.embedding_size = 128
config.margin_list = (1.0, 0.0, 0.2)
config.margin_scale = 32.0
config.batch_size = 32
config.seed = 1
config.num_workers = 0
config.val_targets = ("lfw", "cfp_fp", "agedb_30")
config.verbose = 100000
config.frequent = 10
config.save_all_states = True
config.checkpoint_every = 100
