"""MS1MV3: IResNet-50 distilled from ms1mv3_vit_b through embedding and URFM, on 8 GPUs.

As ms1mv3_r50, the baseline to compare with, and a teacher.

The weights and sizes of the method are our choice, untested on real data: see
ms1mv3_r50_cakd_swin_s.
"""

from _cakd import cakd
from ms1mv3_r50 import config

cakd.teacher.update(network="vit_b", weights="work_dirs/ms1mv3_vit_b/model.pt")
config.cakd = cakd
