"""Feature maps: which ones a loss compares, and how those of two networks come to one grid."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.config import ConfigError
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import FeatureDims
from arcface_cakd.precision import at_least_float32

# A stage by its index, negative ones from the last, so that -1 is the last stage of networks
# with different numbers of them. None stands for the final tokens.
Stage = int | None


def map_widths(loss: str, dims: FeatureDims, stages: Sequence[Stage]) -> list[tuple[int, int]]:
    """The channels (student's, teacher's) of each of ``stages``.

    Args:
        loss: registered name of the loss that asks.
        dims: the widths of both networks.
        stages: None: the final tokens.

    Raises:
        ConfigError: there are no stages, one that a network lacks, or one twice; it names the
            ``loss``.
    """
    if not stages:
        raise ConfigError(f"{loss}: stages is empty: name at least one stage, such as -1")
    widths = []
    named = set()
    for stage in stages:
        if stage is None:
            widths.append((dims.student_tokens, dims.teacher_map_shape[0]))
            continue
        for side, known in (("student", dims.student_stages), ("teacher", dims.teacher_stages)):
            if not -len(known) <= stage < len(known):
                raise ConfigError(f"{loss}: the {side} has no stage {stage}: {_choice(len(known))}")
        couple = stage % len(dims.student_stages), stage % len(dims.teacher_stages)
        if couple in named:
            raise ConfigError(
                f"{loss}: stages {list(stages)} name the student's stage {couple[0]} and the "
                f"teacher's stage {couple[1]} twice: name them once"
            )
        named.add(couple)
        widths.append((dims.student_stages[stage], dims.teacher_stages[stage]))
    return widths


def shared_stages(
    loss: str, dims: FeatureDims, stages: Sequence[int] | None, least: int
) -> tuple[int, ...]:
    """``stages``, or where that is None all that both networks have, counted from the last.

    Args:
        loss: registered name of the loss that asks.
        dims: the widths of both networks.
        stages: the setting of that name.
        least: stages that the loss cannot do without.

    Raises:
        ConfigError: they are fewer than ``least``, in another order, or one is there twice.
    """
    if stages is None:
        count = min(len(dims.student_stages), len(dims.teacher_stages))
        if count < least:
            raise ConfigError(
                f"{loss} needs networks with at least {least} stages, but the student has "
                f"{len(dims.student_stages)} and the teacher {len(dims.teacher_stages)}: use "
                "other networks or another loss"
            )
        stages = range(-count, 0)
    elif len(stages) < least:
        raise ConfigError(f"{loss}: stages needs at least {least} stages, got {list(stages)}")
    for side, known in (("student", dims.student_stages), ("teacher", dims.teacher_stages)):
        order = [stage % len(known) for stage in stages if -len(known) <= stage < len(known)]
        if order != sorted(set(order)):
            raise ConfigError(
                f"{loss}: stages {list(stages)} must name each stage once, the first stage first; "
                f"of the {side} they are {order}"
            )
    return tuple(stages)


def needs_of(stages: Sequence[Stage]) -> frozenset[str]:
    """What a loss over these ``stages`` needs: tokens, stages or both."""
    return frozenset("tokens" if stage is None else "stages" for stage in stages)


def feature_map(features: FaceFeatures, stage: Stage) -> Tensor:
    """The map (B, C, H, W) of a stage, or with None the tokens as one; at least float32."""
    if stage is None:
        tokens, grid = features.pixel_features
        return at_least_float32(tokens.transpose(1, 2).unflatten(2, grid))
    return at_least_float32(features.stages[stage])


def to_common_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (B, C, H, W), the larger one averaged down (adaptive pooling) to the smaller one's
    grid, for height and width by themselves; nothing is scaled up."""
    grid = smaller_grid(student.shape[-2:], teacher.shape[-2:])
    student, teacher = (
        x if tuple(x.shape[-2:]) == grid else F.adaptive_avg_pool2d(x, grid)
        for x in (student, teacher)
    )
    return student, teacher


def smaller_grid(one: Sequence[int], other: Sequence[int]) -> tuple[int, int]:
    """The smaller height and the smaller width of two grids (H, W)."""
    height, width = map(min, one, other)
    return height, width


def _choice(count: int) -> str:
    if count == 0:
        return "it has none: use another network or a loss that needs no stages"
    return f"set one of 0 to {count - 1}, or of -1 (the last) to {-count}"
