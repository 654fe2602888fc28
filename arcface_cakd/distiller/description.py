"""What a distillation says of itself before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from arcface_cakd.config.cakd import LrScale, WeightDecay

if TYPE_CHECKING:
    from arcface_cakd.distiller.module import Distiller


def describe(distiller: Distiller) -> str:
    """What is on, in one line: teacher, losses and terms with their weights, URFM, prompts."""
    config = distiller.config
    parts = []
    if config.margin_weight > 0:
        parts.append(f"margin softmax x {config.margin_weight:g}")
    parts += distiller.losses.described
    for name in ("anchoring", "preservation"):
        term = getattr(distiller, name)
        if term is not None:
            parts.append(f"{name} x {term.weight:g}")
    urfm = prompts = "off"
    if distiller.urfm is not None:
        urfm = f"{distiller.urfm.num_centers} local centres of width {distiller.urfm.dim}"
    if distiller.prompts is not None:
        places = len(distiller.prompts.places)
        prompts = f"{distiller.prompts.num_tokens} at each of {places} places"
    return (
        f"distilling from {config.teacher['network']}: {', '.join(parts)}; URFM {urfm}; "
        f"prompts {prompts}"
    )


def without_effect(distiller: Distiller) -> list[str]:
    """What the entry asks for and nothing comes of, a line each."""
    config, losses = distiller.config, distiller.losses
    lines = [] if distiller.urfm is None else list(distiller.urfm.without_effect)
    compared = [name for name in losses.needing("alignment") if losses.weights[name] > 0]
    if distiller.urfm is not None and not compared:
        lines.append(
            "cakd.urfm trains nothing of the student: no loss with a weight above 0 compares local "
            "features"
        )
    if distiller.prompts is not None and distiller.prompts.num_tokens == 0:
        lines.append("cakd.prompts and cakd.preservation have no effect: num_tokens is 0")
    if not any(losses.weights.values()):
        lines.append(
            "the teacher teaches nothing: no loss in cakd.losses has a weight above 0; raise a "
            "weight, or set cakd=None for a plain model"
        )
    reached = len(losses.at_output) < len(losses) or not distiller.targets_unprompted
    if distiller.prompts is not None and not reached:
        lines.append(
            "cakd.prompts learn nothing from the student: no loss reaches them; set "
            'cakd.output_target="prompted", add one that compares pixel features, or set '
            "cakd.prompts=None"
        )
    if distiller.prompts is None and config.output_target == "prompted":
        lines.append(
            'cakd.output_target="prompted" has no effect, as cakd.prompts is None: set '
            "cakd.prompts=edict(), or drop it"
        )
    tokens = None if config.urfm is None else config.urfm["prompt_tokens"]
    if distiller.prompts is None and tokens in ("detached", "learned"):
        lines.append(
            f"cakd.urfm.prompt_tokens={tokens!r} has no effect, as cakd.prompts is None: set "
            "cakd.prompts=edict(), or drop it"
        )
    if losses.unscheduled:
        lines.append(
            f"the weights of {', '.join(losses.unscheduled)} stay what they are: their schedules "
            "take the whole run, whose length is not known: set schedule.steps, or hand run_steps "
            "to the Distiller"
        )
    lines += losses.without_effect
    lines += _idle_settings(distiller)
    if config.teacher["bf16"] and distiller.amp_dtype is torch.bfloat16:
        lines.append("cakd.teacher.bf16=True has no effect: bf16=True is the teacher's too")
    if config.teacher["cache"] is not None and not distiller.known_parts:
        lines.append("cakd.teacher.cache has no effect: nothing looks at the unprompted teacher")
    return lines


def _idle_settings(distiller: Distiller) -> list[str]:
    """Settings that say something else than by default, and belong to what there is not."""
    config, losses = distiller.config, distiller.losses
    lines = []
    if config.teacher["centers"] is not None and distiller.teacher_fc is None:
        lines.append(
            "cakd.teacher.centers has no effect: no loss and no preservation needs class centres; "
            "drop it"
        )
    uses_tokens = distiller.urfm is not None or losses.needing("tokens")
    if config.teacher["stage"] is not None and not uses_tokens:
        lines.append(
            "cakd.teacher.stage has no effect: neither URFM nor a loss looks at the teacher's "
            "pixel features; drop it"
        )
    groups = {group["name"] for group in distiller.parameter_groups(1.0, 0.0)}
    for key, given, usual in (
        ("lr_scale", config.lr_scale, LrScale()),
        ("weight_decay", config.weight_decay, WeightDecay()),
    ):
        for part in ("prompts", "urfm"):
            if part not in groups and getattr(given, part) != getattr(usual, part):
                lines.append(
                    f"cakd.{key}.{part}={getattr(given, part):g} has no effect: nothing of that "
                    "kind is learned; drop it"
                )
    prompts = distiller.prompts
    if prompts is not None and config.output_target == "prompted" and not losses.at_output:
        lines.append(
            'cakd.output_target="prompted" has no effect: no loss looks at the teacher\'s output '
            "alone; drop it"
        )
    tokens = "none" if config.urfm is None else config.urfm["prompt_tokens"]
    if prompts is not None and tokens != "none" and not prompts.reach_the_end:
        lines.append(
            f"cakd.urfm.prompt_tokens={tokens!r} has no effect: no prompts enter the teacher's "
            "last stage, and so none leave it; name it in cakd.prompts.places"
        )
    if distiller.anchoring is not None:
        lines += distiller.anchoring.without_effect
    return lines
