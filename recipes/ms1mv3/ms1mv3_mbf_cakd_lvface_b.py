"""MS1MV3: MobileFaceNet distilled from the released LVFace-B through embedding and URFM, on 8 GPUs.

As ms1mv3_mbf_cakd_vit_b, but that the teacher is not ours: LVFace-B (You et al., ICCV 2025), which
learned on Glint360K and is an arcface_torch ViT-B for large data; its authors give 97.70 on IJB-C
at 1e-4. Its weights are for non-commercial research only; what that means for a student of theirs
is for you to find out. They come from the Hugging Face Hub when the run starts, and stay in its
cache; the path of a file of them does as well. LVFace-T, -S and -L are vit_t, vit_s and
vit_l_dp005_mask_005.

Its class centres, of other people, are no part of the file: losses that need some take
centers="from_data". Untested: the file could not be had here, only its layout.
"""

from _cakd import cakd
from ms1mv3_mbf import config

cakd.teacher.update(
    network="vit_b_dp005_mask_005",
    weights="hf:bytedance-research/LVFace/LVFace-B_Glint360K/LVFace-B_Glint360K.pt",
)
config.cakd = cakd
