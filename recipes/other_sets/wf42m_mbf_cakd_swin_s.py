"""WebFace42M: MobileFaceNet distilled from wf42m_swin_s through embedding and URFM, on 8 GPUs.

As wf42m_mbf, the baseline to compare with, and a teacher.

The weights and sizes of the method are our choice, untested on real data: see
ms1mv3_mbf_cakd_swin_s.
"""

from _cakd import cakd
from wf42m_mbf import config

cakd.teacher.update(network="swin_s", weights="work_dirs/wf42m_swin_s/model.pt")
config.cakd = cakd
