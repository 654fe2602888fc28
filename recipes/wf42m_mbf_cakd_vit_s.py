"""WebFace42M: MobileFaceNet distilled from wf42m_vit_s by the whole method, on 8 GPUs.

As wf42m_mbf, the baseline to compare with, and a teacher. Prompts enter at each of the teacher's
12 blocks.

The weights and sizes of the method are our choice, untested on real data: see
ms1mv3_mbf_cakd_swin_s.
"""

from _cakd import cakd
from wf42m_mbf import config

cakd.teacher.update(network="vit_s_dp005_mask_0", weights="work_dirs/wf42m_vit_s/model.pt")
config.cakd = cakd
