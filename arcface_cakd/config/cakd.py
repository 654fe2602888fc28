"""The ``cakd`` entry of a config."""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from arcface_cakd.config.settings import (
    ConfigError,
    Range,
    Section,
    check_settings,
    key_of,
    settings_of,
)
from arcface_cakd.registry import LOSSES

Weight = Annotated[float, Range(0.0)]
_COMMON = ("name", "weight", "schedule")  # keys of every entry of cakd.losses
# What a loss may need that only an image of a known identity has.
_OF_IDENTITIES = frozenset({"labels", "logits", "centers"})

# The method's losses where an entry names none. L_feat teaches early and leaves the end of the run
# to the embedding, which is what is judged: on real faces better than at any constant weight.
METHOD_LOSSES: tuple[Mapping[str, Any], ...] = (
    {"name": "embedding_cosine", "weight": 64.0},
    {"name": "urfm_feature", "weight": 100.0, "schedule": {"kind": "decay"}},
    {"name": "urfm_attention", "weight": 1.0},
)


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
        common = {key: entry[key] for key in _COMMON if key in entry}
        own = {key: value for key, value in entry.items() if key not in common}
        checked = check_settings(cls, common, where)
        for key in _COMMON:
            if key in settings_of(LOSSES.get(entry["name"])):
                raise ConfigError(
                    f"loss {entry['name']!r} has a setting {key!r}, which every entry of "
                    "cakd.losses has for itself: rename the loss's own"
                )
        checked["settings"] = check_settings(LOSSES.get(entry["name"]), own, where, _COMMON)
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
        prompts: settings of APT, or None where the teacher goes unprompted, as it does where
            nothing is said: they cost a pass through the teacher with its gradients, and were not
            seen to pay for it (``eval/study/LOG.md``).
        urfm: settings of URFM, or None. Unsaid: on where a loss compares local features, so that
            another publication's loss has the teacher that it was made for.
        losses: the losses. Unsaid, or None: those of ``METHOD_LOSSES``; without URFM the first
            of them alone.
        anchoring: settings of the teacher-side anchoring, or None; on where URFM is on and the
            entry does not say otherwise.
        preservation: settings of the term that keeps a prompted teacher discriminative, or None;
            on where prompts are on and the entry does not say otherwise.
        output_target: what losses that look at the teacher's output alone compare with, where it
            has prompts: the output without them (ours, so that the target does not move towards
            the student), or with them.
        margin_weight: weight of the student's own margin softmax loss. With 0 there is none:
            no class centres, and labels only where a loss or preservation needs them.
        student_weights: a ``model.pt`` that the student starts from, or None.
        lr_scale: learning rate of each part that is learned beside the student.
        weight_decay: weight decay of the same parts.
        clipping: whether what is learned beside the student has a budget of its own when
            gradients are clipped ("separate"), or the student's steps shrink where that is
            large ("shared").
    """

    teacher: Annotated[dict, Section("teacher")]
    prompts: Annotated[dict, Section("prompts")] | None = None
    urfm: Annotated[dict, Section("urfm")] | None = None
    losses: tuple[LossEntry, ...] = ()
    anchoring: Annotated[dict, Section("anchoring")] | None = None
    preservation: Annotated[dict, Section("preservation")] | None = None
    output_target: Literal["unprompted", "prompted"] = "unprompted"
    margin_weight: Weight = 1.0
    student_weights: str | None = None
    lr_scale: LrScale = LrScale()
    weight_decay: WeightDecay = WeightDecay()
    clipping: Literal["separate", "shared"] = "separate"

    @property
    def needs_landmarks(self) -> bool:
        """Whether training needs the landmarks of each image."""
        return self.urfm is not None and self.urfm["landmarks"] == "image"

    @property
    def needs_labels(self) -> bool:
        """Whether training needs to know who is on each image."""
        kept = self.preservation is not None and self.preservation["kind"] == "margin"
        return self.margin_weight > 0 or kept or bool(self.losses_needing(_OF_IDENTITIES))

    def losses_needing(self, needs: Collection[str]) -> list[str]:
        """The names of the losses whose class says that it needs any of these."""
        return [
            entry.name
            for entry in self.losses
            if getattr(LOSSES.get(entry.name), "needs", frozenset()).intersection(needs)
        ]

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
            entry = _with_sections(entry)
        config = cls(**check_settings(cls, entry, where))
        if config.urfm is None and config.anchoring is not None:
            raise ConfigError(f"{where}.anchoring ties URFM's teacher side, but cakd.urfm is None")
        if config.prompts is None and config.preservation is not None:
            raise ConfigError(
                f"{where}.preservation keeps a prompted teacher, but cakd.prompts is None: set "
                "cakd.prompts=edict(), or drop it"
            )
        if config.margin_weight == 0 and not any(loss.weight > 0 for loss in config.losses):
            raise ConfigError(
                f"{where}.margin_weight is 0, and no loss in {where}.losses has a weight above 0: "
                "the student would learn nothing; raise a weight"
            )
        for name in config.losses_needing({"logits"}) if config.margin_weight == 0 else ():
            raise ConfigError(
                f"loss {name!r} compares scores of the student's own class centres, and with "
                f"{where}.margin_weight 0 there are none: raise it, or drop the loss"
            )
        teacher = config.teacher
        if teacher["cached_views"] is not None and teacher["cache"] is None:
            raise ConfigError(
                f"{where}.teacher.cached_views counts views in a cache: set "
                f"{key_of(where)}.teacher.cache to a folder, or drop it"
            )
        if teacher["cache"] == "":
            raise ConfigError(f"{where}.teacher.cache is empty: name a folder, or drop it")
        if teacher["weights"] is None and not teacher["network"].startswith("onnx:"):
            raise ConfigError(
                f"{where}.teacher lacks 'weights', which only an ONNX file can do without: set "
                "cakd.teacher.weights to the model.pt of a finished run"
            )
        return config


def unsaid_losses(entry: Mapping) -> list[dict[str, Any]]:
    """The losses of an entry that names none: the method's, those without URFM where it is off."""
    alone = "urfm" in entry and entry["urfm"] is None
    return [copy.deepcopy(dict(loss)) for loss in METHOD_LOSSES[: 1 if alone else None]]


def _with_sections(entry: Mapping) -> dict:
    """An entry with the losses, and the sections, that it has where it does not say so."""
    entry = dict(entry)
    if entry.get("losses") is None:
        entry["losses"] = unsaid_losses(entry)
    compared = _compares_local_features(entry["losses"])
    entry = {"urfm": {} if compared else None, **entry}
    if entry["urfm"] is not None:
        entry = {"anchoring": {}, **entry}
    if entry.get("prompts") is not None:
        entry = {"preservation": {}, **entry}
    return entry


def _compares_local_features(losses: Any) -> bool:
    """Whether a loss of an entry, not yet checked, needs URFM."""
    if not isinstance(losses, (list, tuple)):
        return False
    known = LOSSES.names()
    return any(
        "alignment" in getattr(LOSSES.get(loss["name"]), "needs", ())
        for loss in losses
        if isinstance(loss, Mapping) and loss.get("name") in known
    )
