"""The ``cakd`` entry of a config."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from arcface_cakd.config.settings import ConfigError, Range, check_settings
from arcface_cakd.registry import LOSSES, SECTIONS

Weight = Annotated[float, Range(0.0)]


@dataclass(frozen=True)
class LossEntry:
    """One entry of ``cakd.losses``: a registered loss, its weight, its own settings.

    Attributes:
        schedule: settings of a ``WeightSchedule`` of the weight, or None where it is constant.
    """

    name: str
    weight: float
    settings: dict[str, Any]
    schedule: dict[str, Any] | None = None


@dataclass(frozen=True)
class ByPart:
    """A number for each part of what distillation trains besides the student.

    Attributes:
        prompts: for APT's prompts.
        urfm: for URFM and everything else that is learned beside the student (the shared MSA,
            the anchoring head, the heads of losses).
    """

    prompts: Weight
    urfm: Weight


_ON: dict = {}  # a section that is on, with its own defaults; never written to


def _entry(
    *,
    teacher: dict,
    prompts: dict | None = _ON,
    urfm: dict | None = _ON,
    losses: tuple | None = None,
    anchoring: dict | None = None,
    preservation: dict | None = None,
    margin_weight: Weight = 1.0,
    student_weights: str | None = None,
    lr_scale: dict | None = None,
    weight_decay: dict | None = None,
    clipping: Literal["separate", "shared"] = "separate",
) -> None:
    """Declares the keys of a ``cakd`` entry; each section is checked against its component."""


@dataclass(frozen=True)
class CakdConfig:
    """A validated ``cakd`` entry, every default filled in.

    Attributes:
        teacher: settings of the teacher (``network``, ``weights``, ...).
        prompts: settings of APT, or None where the teacher goes unprompted. Default: on.
        urfm: settings of URFM, or None. Default: on.
        losses: the alignment losses. Default: ``embedding_cosine``, and with URFM also
            ``urfm_feature`` and ``urfm_attention``, each of weight 1.
        anchoring: settings of the teacher-side anchoring, or None. Default: on with URFM.
        preservation: settings of the term that keeps a prompted teacher discriminative, or None.
        margin_weight: weight of the student's own margin softmax loss.
        student_weights: a ``model.pt`` that the student starts from, or None.
        lr_scale: learning rate of each part, as a multiple of the config's ``lr``. Default 1.
        weight_decay: weight decay of each part. Default 0 for prompts, 5e-4 for URFM.
        clipping: whether what is learned beside the student has a budget of its own when
            gradients are clipped ("separate"), or the student's steps shrink where that is
            large ("shared").
    """

    teacher: dict[str, Any]
    prompts: dict[str, Any] | None
    urfm: dict[str, Any] | None
    losses: tuple[LossEntry, ...]
    anchoring: dict[str, Any] | None
    preservation: dict[str, Any] | None
    margin_weight: float
    student_weights: str | None
    lr_scale: ByPart
    weight_decay: ByPart
    clipping: str

    @property
    def needs_landmarks(self) -> bool:
        """Whether training needs the landmarks of each image."""
        return self.urfm is not None and self.urfm["landmarks"] == "image"

    @classmethod
    def from_entry(cls, entry: Mapping) -> "CakdConfig":
        """Check a ``cakd`` entry and fill in its defaults.

        Raises:
            ConfigError: an unknown key, a value of the wrong type or out of range.
            UnknownNameError: an unknown loss.
        """
        top = check_settings(_entry, entry, "cakd")

        def section(name: str) -> dict[str, Any] | None:
            if top[name] is None:
                return None
            return check_settings(SECTIONS.get(name), top[name], f"cakd.{name}")

        if top["urfm"] is None and top["anchoring"] is not None:
            raise ConfigError("cakd.anchoring ties URFM's teacher side, but cakd.urfm is None")
        if top["urfm"] is not None and "anchoring" not in entry:
            top["anchoring"] = _ON
        if top["prompts"] is None and top["preservation"] is not None:
            raise ConfigError(
                "cakd.preservation keeps a prompted teacher, but cakd.prompts is None"
            )
        teacher = section("teacher")
        if teacher["weights"] is None and not teacher["network"].startswith("onnx:"):
            raise ConfigError(
                "cakd.teacher lacks 'weights', which only an ONNX file can do without: set "
                "cakd.teacher.weights to the model.pt of a finished run"
            )
        losses = top["losses"]
        if losses is None:
            losses = [{"name": "embedding_cosine"}]
            if top["urfm"] is not None:
                losses += [{"name": "urfm_feature"}, {"name": "urfm_attention"}]
        return cls(
            teacher=teacher,
            prompts=section("prompts"),
            urfm=section("urfm"),
            losses=tuple(_loss_entry(loss, f"cakd.losses[{i}]") for i, loss in enumerate(losses)),
            anchoring=section("anchoring"),
            preservation=section("preservation"),
            margin_weight=top["margin_weight"],
            student_weights=top["student_weights"],
            lr_scale=_by_part(top["lr_scale"], "cakd.lr_scale", prompts=1.0, urfm=1.0),
            weight_decay=_by_part(top["weight_decay"], "cakd.weight_decay", prompts=0.0, urfm=5e-4),
            clipping=top["clipping"],
        )


def _loss_entry(given: Any, where: str) -> LossEntry:
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise ConfigError(f"{where} must be an edict with a name, got {given!r}")
    settings = dict(given)
    name = settings.pop("name")
    weight = _weight(settings.pop("weight", 1.0), where)
    schedule = settings.pop("schedule", None)
    if schedule is not None:
        schedule = check_settings(SECTIONS.get("schedule"), schedule, f"{where}.schedule")
    return LossEntry(name, weight, check_settings(LOSSES.get(name), settings, where), schedule)


def _weight(value: Any, where: str) -> float:
    def declared(*, weight: Weight): ...

    return check_settings(declared, {"weight": value}, where)["weight"]


def _by_part(given: Mapping | None, where: str, **defaults: float) -> ByPart:
    return ByPart(**check_settings(ByPart, {**defaults, **(given or {})}, where))
