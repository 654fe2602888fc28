"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by feature consistency, on 8 GPUs.

On raw embeddings, as FaceX-Zoo and TFace take them; on normalised ones it is twice
embedding_cosine. 0.125 is 64 / 512: 64 times the mean over the entries. Ours, untested.
"""

from _rival import config

config.cakd.losses = [dict(name="embedding_l2", weight=0.125, normalize=False)]
