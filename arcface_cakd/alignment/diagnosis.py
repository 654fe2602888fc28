"""What tells, while training goes on, whether URFM's target is still worth learning."""

import torch
from torch import Tensor

from arcface_cakd.alignment.geometry import patch_shares
from arcface_cakd.alignment.local_features import LocalFeatures
from arcface_cakd.alignment.rank import effective_rank


@torch.no_grad()
def alignment_figures(
    student: LocalFeatures,
    teacher: LocalFeatures,
    grids: dict[str, tuple[int, int]],
    extents: dict[str, float],
) -> dict[str, float]:
    """Figures on the local features of a batch, by name.

    ``teacher_rank`` and ``attended_rank``: effective rank of h_T and of MSA(h_T), which falls, the
    second one first, when the teacher's side collapses. ``constant_feature``: L_feat of the best
    constant prediction, MSA(h_T)'s mean over the batch, which falls when all faces become alike.
    ``feature_ratio``: L_feat over that; above 1 the student knows less than a constant does; left
    out where that is 0, as of images that are all the same.
    ``lookup_variation``: total variation, 0 to 1, between what the two sides' centres look at on
    the crop, prompts left out: mean over images, heads and centres. ``prompt_attention``: share of
    the teacher side's attention on prompts, where they are tokens.

    Args:
        student: and ``teacher``: local features of the same images.
        grids: (H, W) of the patches, and ``extents``: the pixels that they cover, by side.
    """
    # In float64 the mean of what is all the same is that, and constant exactly 0.
    target = teacher.attended.double()
    feature = (student.attended.double() - target).square().mean()
    constant = (target - target.mean(0)).square().mean()
    shares = patch_shares(
        grids["student"], extents["student"], grids["teacher"], extents["teacher"]
    )
    fields = []
    for side, share in zip((student, teacher), shares, strict=True):
        patches = side.lookup[..., : len(share)].double()
        patches = patches / patches.sum(-1, keepdim=True)
        fields.append(patches @ share.to(patches.device))
    figures = {
        "teacher_rank": effective_rank(teacher.h),
        "attended_rank": effective_rank(teacher.attended),
        "constant_feature": constant.item(),
        "lookup_variation": (fields[0] - fields[1]).abs().sum(-1).mean().item() / 2,
    }
    if constant > 0:
        figures["feature_ratio"] = (feature / constant).item()
    on_prompts: Tensor = teacher.lookup[..., len(shares[1]) :]
    if on_prompts.shape[-1]:
        figures["prompt_attention"] = on_prompts.sum(-1).mean().item()
    return figures
