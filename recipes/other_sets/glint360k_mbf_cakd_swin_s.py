"""Glint360K: MobileFaceNet distilled from glint360k_swin_s through embedding and URFM, on 8 GPUs.

As glint360k_mbf, the baseline to compare with, and a teacher.

The weights and sizes of the method are our choice, untested on real data: see
ms1mv3_mbf_cakd_swin_s.
"""

from _cakd import cakd
from glint360k_mbf import config

cakd.teacher.update(network="swin_s", weights="work_dirs/glint360k_swin_s/model.pt")
config.cakd = cakd
