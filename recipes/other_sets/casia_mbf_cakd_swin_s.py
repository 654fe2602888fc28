"""CASIA-WebFace: MobileFaceNet distilled from casia_swin_s through embedding and URFM, on 8 GPUs.

As casia_mbf, the baseline to compare with, and a teacher.

The weights and sizes of the method are our choice, untested on real data: see
ms1mv3_mbf_cakd_swin_s.
"""

from _cakd import cakd
from casia_mbf import config

cakd.teacher.update(network="swin_s", weights="work_dirs/casia_swin_s/model.pt")
config.cakd = cakd
