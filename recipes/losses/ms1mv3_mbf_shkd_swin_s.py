"""MS1MV3: MobileFaceNet distilled from ms1mv3_swin_s_on_mbf_centers (SH-KD), on 8 GPUs.

The second stage of HeadSharing's student head (Ben-Baruch et al., arXiv 2201.06945): the teacher
was trained under the centres of a plain student, ms1mv3_mbf. The publication has IJB-C 95.64 at a
FAR of 1e-4 for a MobileFaceNet on MS1MV3. Its code has no faces; the embedding loss and its weight
of 64 are ours, untested.
"""

from _cakd import cakd
from _rival import config

config.cakd.teacher.weights = "work_dirs/ms1mv3_swin_s_on_mbf_centers/model.pt"
config.cakd.losses = cakd.losses[:1]
