"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s by MGD, on 8 GPUs.

Masking 15 % of the channels and the weight are the publication's for classification: its 7e-5 goes
with a sum, and 7e-5 times the 768 x 49 entries of the map, which the mean here divides by, is 2.6.
Untested here; its gradient on a fresh student is far below the margin softmax's.
"""

from _rival import config

config.cakd.losses = [dict(name="mgd", weight=2.6, mask="channels", mask_ratio=0.15)]
