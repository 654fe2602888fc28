"""The ``cakd`` entry of a config."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from arcface_cakd.config.settings import ConfigError, Range, Section, check_settings
from arcface_cakd.registry import LOSSES

Weight = Annotated[float, Range(0.0)]


@dataclass(frozen=True)
class LossEntry:
    """One entry of ``cakd.losses``: a registered loss, its weight, its own settings.

    Attributes:
        name: of the loss, in ``LOSSES``.
        weight: of the loss among the terms.
        schedule: settings of a ``WeightSchedule`` of the weight, or None where it is constant.
        settings: of the loss itself; in the entry they stand beside the other three.
    """

    name: str
    weight: Weight = 1.0
    schedule: Annotated[dict, Section("schedule")] | None = None
    settings: dict = field(default_factory=dict)

    @classmethod
    def from_entry(cls, entry: Any, where: str) -> "LossEntry":
        """Check one entry and fill in the loss's own defaults.

        Raises:
            ConfigError: no edict with a name, an unknown key, a wrong value.
            UnknownNameError: an unknown loss.
        """
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise ConfigError(f"{where} must be an edict with a name, got {entry!r}")
        common = {key: entry[key] for key in ("name", "weight", "schedule") if key in entry}
        own = {key: value for key, value in entry.items() if key not in common}
        checked = check_settings(cls, common, where)
        checked["settings"] = check_settings(LOSSES.get(entry["name"]), own, where)
        return cls(**checked)


@dataclass(frozen=True)
class LrScale:
    """Learning rates, as multiples of the config's ``lr``.

    Attributes:
        prompts: of APT's prompts.
        urfm: of URFM and everything else that is learned beside the student (the shared MSA,
            the anchoring head, the heads of losses).
    """

    prompts: Weight = 1.0
    urfm: Weight = 1.0


@dataclass(frozen=True)
class WeightDecay:
    """Weight decay of the same two parts as ``LrScale``'s."""

    prompts: Weight = 0.0
    urfm: Weight = 5e-4


@dataclass(frozen=True)
class CakdConfig:
    """The ``cakd`` entry: its keys, their defaults, and what they mean.

    A section is an edict of settings of one component, declared where that is defined and checked
    against it; ``from_entry`` fills in its defaults.

    Attributes:
        teacher: settings of the teacher (``network``, ``weights``, ...).
        prompts: settings of APT, or None where the teacher goes unprompted.
        urfm: settings of URFM, or None.
        losses: the alignment losses. Unsaid, or None: ``embedding_cosine``, and with URFM also
            ``urfm_feature`` and ``urfm_attention``, each of weight 1.
        anchoring: settings of the teacher-side anchoring, or None; on where URFM is on and the
            entry does not say otherwise.
        preservation: settings of the term that keeps a prompted teacher discriminative, or None.
        margin_weight: weight of the student's own margin softmax loss.
        student_weights: a ``model.pt`` that the student starts from, or None.
        lr_scale: learning rate of each part that is learned beside the student.
        weight_decay: weight decay of the same parts.
        clipping: whether what is learned beside the student has a budget of its own when
            gradients are clipped ("separate"), or the student's steps shrink where that is
            large ("shared").
    """

    teacher: Annotated[dict, Section("teacher")]
    prompts: Annotated[dict, Section("prompts")] | None = field(default_factory=dict)
    urfm: Annotated[dict, Section("urfm")] | None = field(default_factory=dict)
    losses: tuple[LossEntry, ...] = ()
    anchoring: Annotated[dict, Section("anchoring")] | None = None
    preservation: Annotated[dict, Section("preservation")] | None = None
    margin_weight: Weight = 1.0
    student_weights: str | None = None
    lr_scale: LrScale = LrScale()
    weight_decay: WeightDecay = WeightDecay()
    clipping: Literal["separate", "shared"] = "separate"

    @property
    def needs_landmarks(self) -> bool:
        """Whether training needs the landmarks of each image."""
        return self.urfm is not None and self.urfm["landmarks"] == "image"

    def resumed(self) -> "CakdConfig":
        """The entry of a run that goes on: its checkpoint brings the student's weights."""
        return replace(self, student_weights=None)

    @classmethod
    def from_entry(cls, entry: Any, where: str = "cakd") -> "CakdConfig":
        """Check a ``cakd`` entry and fill in its defaults.

        Raises:
            ConfigError: an unknown key, a value of the wrong type or out of range, keys that do
                not go together.
            UnknownNameError: an unknown loss.
        """
        if isinstance(entry, Mapping):
            entry = {"prompts": {}, "urfm": {}, **entry}
            if entry["urfm"] is not None:
                entry = {"anchoring": {}, **entry}
            if entry.get("losses") is None:
                names = ["embedding_cosine"]
                names += [] if entry["urfm"] is None else ["urfm_feature", "urfm_attention"]
                entry["losses"] = [{"name": name} for name in names]
        config = cls(**check_settings(cls, entry, where))
        if config.urfm is None and config.anchoring is not None:
            raise ConfigError(f"{where}.anchoring ties URFM's teacher side, but cakd.urfm is None")
        if config.prompts is None and config.preservation is not None:
            raise ConfigError(
                f"{where}.preservation keeps a prompted teacher, but cakd.prompts is None"
            )
        teacher = config.teacher
        if teacher["cached_views"] is not None and teacher["cache"] is None:
            raise ConfigError(
                f"{where}.teacher.cached_views counts views in a cache: set {where}.teacher.cache "
                "to a folder, or drop it"
            )
        if teacher["weights"] is None and not teacher["network"].startswith("onnx:"):
            raise ConfigError(
                f"{where}.teacher lacks 'weights', which only an ONNX file can do without: set "
                "cakd.teacher.weights to the model.pt of a finished run"
            )
        return config
