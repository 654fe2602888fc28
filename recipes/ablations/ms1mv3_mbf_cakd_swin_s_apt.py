"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s with prompts in it (APT), on 8 GPUs.

As ms1mv3_mbf_cakd_swin_s, but for this: 8 prompts at each of the teacher's stages, which learn
beside the student, and preservation, which keeps what the teacher says with them near what it says
without. Their number and its weight are ours, untested on real data. Gradients pass through the
teacher to its prompts, and it runs once more without them: a step needs about the memory of
training the teacher (not measured; meant for GPUs of 80 GB).
"""

from ms1mv3_mbf_cakd_swin_s import config

config.cakd.prompts = dict(num_tokens=8)
config.cakd.preservation = dict()
