"""What all runs on real data share: arcface_torch's settings for a CNN, 8 x 128 images a step."""

from easydict import EasyDict as edict

config = edict()
config.network = "r50"
config.output = None
config.resume = False
config.save_all_states = True
config.embedding_size = 512
config.margin_list = (1.0, 0.5, 0.0)
config.sample_rate = 1.0
config.fp16 = True
config.batch_size = 128
config.optimizer = "sgd"
config.lr = 0.1
config.momentum = 0.9
config.weight_decay = 5e-4
config.verbose = 2000
config.dali = False
