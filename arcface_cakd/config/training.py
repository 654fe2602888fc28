"""Config files in arcface_torch's own style, as the built-in loop reads them."""

import ast
import contextlib
import re
import runpy
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from easydict import EasyDict

from arcface_cakd.config.cakd import CakdConfig, unsaid_losses
from arcface_cakd.config.other_words import data_folder, take_up_loss
from arcface_cakd.config.settings import ConfigError, Range, Section, check_settings
from arcface_cakd.errors import ArcfaceCakdWarning
from arcface_cakd.registry import did_you_mean, nearest
from arcface_cakd.resources import import_folders

VAL_TARGETS = ("lfw", "cfp_fp", "agedb_30")
"""The verification sets that are looked for where nobody names others, as in arcface_torch."""

Count = Annotated[int, Range(1)]
_SHOWN = 200  # letters of a value that a message repeats

# Keys of arcface_torch's configs/base.py that belong to its own tools; the built-in loop takes
# such a config as it is and leaves them alone.
_HOST_ONLY = {
    "fast_items",
    "dali",
    "dali_aug",
    "wandb_key",
    "suffix_run_name",
    "using_wandb",
    "wandb_entity",
    "wandb_project",
    "wandb_log_all",
    "save_artifacts",
    "wandb_resume",
    "image_size",
}


@dataclass
class TrainConfig:
    """A training run. Keys and defaults are arcface_torch's, where it has them.

    Attributes:
        rec: folder of ``train.rec`` or that file; or folder of one folder of images per identity
            (where ``needs_labels`` is false, of images in whatever folders).
        output: folder for checkpoints, ``model.pt`` and logs; None means work_dirs/<config name>.
        network: the backbone, a name in ``BACKBONES`` or ``timm:<name>``.
        init_weights: what a plain model starts from: a file or folder of weights,
            ``hf:<owner>/<name>``, or ``timm:<model>`` for what timm downloads; None: random ones.
        embedding_size: width E of the embedding.
        num_classes: identities; None means as many as the data set has. Without effect where
            ``needs_labels`` is false.
        num_image: images; None means as many as the data set has.
        num_epoch: epochs over ``num_image``.
        warmup_epoch: epochs of linear warm-up.
        batch_size: images per rank and step.
        margin_list: (m1, m2, m3) of the combined margin: (1, .5, 0) ArcFace, (1, 0, .4) CosFace.
        margin_scale: s, the scale of the logits.
        margin_gradient: "straight_through", as arcface_torch's ArcFace computes it, or "exact".
        adaface: settings of the AdaFace margin, which takes the place of ``margin_list`` and
            ``margin_gradient``; None: the combined margin.
        init_centers: what the class centres start from: the ``checkpoint_gpu_*.pt`` of a run on
            the same set, a path or a pattern; None: random ones.
        freeze_centers: leave the class centres as they start.
        interclass_filtering_threshold: negatives above it are dropped; 0 keeps them all.
        sample_rate: share of the class centres in each step (Partial FC).
        optimizer: "sgd" or "adamw".
        lr: learning rate of student and centres after warm-up.
        momentum: of SGD.
        weight_decay: of student and centres.
        gradient_acc: micro-steps whose gradients are summed before the optimiser steps.
        clip_grad_norm: largest norm of the student's gradient; None: unclipped. What
            distillation trains besides has a budget of the same size of its own.
        fp16: float16 with a gradient scaler.
        bf16: bfloat16; not together with ``fp16``.
        seed: of initial weights, order, flips, augmentation and sampled classes.
        augment: settings of ``Augmentation``, or None.
        num_workers: worker processes that decode.
        check_records: hold records against ``train.sha256`` when they are read.
        resume: go on from the checkpoint in ``output``; "auto": where there is one.
        force: write to an ``output`` that holds another run.
        save_all_states: keep the checkpoint that resuming needs.
        checkpoint_every: steps between checkpoints; None: at the end of every epoch.
        checkpoint_minutes: minutes between checkpoints, besides those; None: no more.
        keep_checkpoints: how many stay, the newest among them.
        keep_best: keep also the one that does best on the first validation set.
        rank_timeout: seconds that a rank may give no sign of life, or not come to a step in which
            others wait, before the run ends.
        non_finite: what becomes of a step whose loss or gradient is not finite: "stop" ends the
            run, "skip" leaves it out.
        non_finite_limit: steps that "skip" leaves out; the next one ends the run.
        val_targets: names of the .bin sets in ``rec`` to validate on.
        verbose: steps between validations.
        frequent: steps between log lines.
        cakd: the distillation entry; None trains a plain model.
    """

    rec: str
    network: str = "r50"
    init_weights: str | None = None
    output: str | None = None
    embedding_size: Count = 512
    num_classes: Count | None = None
    num_image: Count | None = None
    num_epoch: Count = 20
    warmup_epoch: Annotated[float, Range(0)] = 0.0
    batch_size: Annotated[int, Range(2)] = 128
    margin_list: tuple[float, float, float] = (1.0, 0.5, 0.0)
    margin_scale: Annotated[float, Range(above=0)] = 64.0
    margin_gradient: Literal["straight_through", "exact"] = "straight_through"
    adaface: Annotated[dict, Section("adaface")] | None = None
    init_centers: str | None = None
    freeze_centers: bool = False
    interclass_filtering_threshold: Annotated[float, Range(0)] = 0.0
    sample_rate: Annotated[float, Range(above=0, high=1)] = 1.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Range(above=0)] = 0.1
    momentum: Annotated[float, Range(0, 1)] = 0.9
    weight_decay: Annotated[float, Range(0)] = 5e-4
    gradient_acc: Count = 1
    clip_grad_norm: Annotated[float, Range(above=0)] | None = 5.0
    fp16: bool = False
    bf16: bool = False
    seed: int = 2048
    augment: Annotated[dict, Section("augment")] | None = None
    num_workers: Annotated[int, Range(0)] = 2
    check_records: bool = False
    resume: bool | Literal["auto"] = False
    force: bool = False
    save_all_states: bool = False
    checkpoint_every: Count | None = None
    checkpoint_minutes: Annotated[float, Range(above=0)] | None = None
    keep_checkpoints: Count = 2
    keep_best: bool = True
    rank_timeout: Annotated[float, Range(above=0)] = 600.0
    non_finite: Literal["stop", "skip"] = "stop"
    non_finite_limit: Count = 100
    val_targets: tuple[str, ...] = VAL_TARGETS
    verbose: Count = 2000
    frequent: Count = 10
    cakd: CakdConfig | None = None

    def __post_init__(self) -> None:
        if self.rec == "synthetic" and not Path(self.rec).exists():
            raise ConfigError(
                'config.rec is "synthetic", images that arcface_torch makes up for itself: name a '
                "folder ('arcface-cakd data synthesize' makes faces)"
            )
        self.rec = data_folder(self.rec)
        if not -(2**63) <= self.seed < 2**64 - 2**32:  # as torch has it; a rank adds its number
            raise ConfigError(f"config.seed must be from -2^63 to below 2^64 - 2^32: {self.seed}")

    @property
    def needs_labels(self) -> bool:
        """Whether training needs to know who is on each image."""
        return self.cakd is None or self.cakd.needs_labels

    @property
    def has_class_centers(self) -> bool:
        """Whether the student learns class centres: not where ``cakd.margin_weight`` is 0."""
        return self.cakd is None or self.cakd.margin_weight > 0

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether the run writes checkpoints without being asked by a signal."""
        times = (self.checkpoint_every, self.checkpoint_minutes)
        return self.save_all_states or any(time is not None for time in times)

    @property
    def folder(self) -> Path:
        """``output`` as a path.

        Raises:
            ConfigError: there is none: ``load_config`` fills in what a file leaves out.
        """
        if self.output is None:
            raise ConfigError("config.output is None: name the folder that the run writes to")
        return Path(self.output)


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """Read a config file and complete it.

    Args:
        path: a Python file that defines ``config``, an EasyDict, as in arcface_torch. It is
            executed, with its own folder importable, so that recipes can share pieces.
        overrides: ``"key=value"`` strings; dots reach into entries (``cakd.urfm.dim=128``,
            ``cakd.losses.0.weight=2``) and values are Python literals, else plain strings.

    Raises:
        ConfigError: no such file, one that does not run, an unknown key, a wrong value.
    """
    path = Path(path)
    raw = execute_config(path)
    for override in overrides:
        _override(raw, override, known_keys())
    for key, near in unknown_keys(raw).items():
        if near:
            raise ConfigError(f"{path}: unknown key {key!r}; did you mean {near!r}?")
        warnings.warn(f"{path}: unknown key {key!r} is ignored", ArcfaceCakdWarning, stacklevel=2)
    take_up_loss(raw, path)
    own = {field.name for field in fields(TrainConfig)}
    given = {k: v for k, v in raw.items() if k in own}
    config = TrainConfig(**check_settings(TrainConfig, given, f"{path}: config"))
    check_combination(
        f"{path}: config",
        fp16=config.fp16,
        bf16=config.bf16,
        init_weights=config.init_weights,
        distills=config.cakd is not None,
    )
    check_centers(
        f"{path}: config",
        init_centers=config.init_centers,
        freeze_centers=config.freeze_centers,
    )
    for key in ("rec", "output"):
        if getattr(config, key) == "":  # it would be the current folder
            raise ConfigError(f"{path}: config.{key} is empty: name a folder")
    if config.output is None:
        config.output = str(Path("work_dirs") / path.stem)
    return config


def known_keys() -> set[str]:
    """The top-level keys of a config: ours, arcface_torch's, and what older versions had."""
    return {field.name for field in fields(TrainConfig)} | _HOST_ONLY | {"loss"}


def unknown_keys(config: Iterable[str]) -> dict[str, str | None]:
    """The keys that neither loop reads, each with the known one that it resembles, or None.

    A fork of arcface_torch may have keys of its own: a resemblance is a close one.
    """
    known = known_keys()
    return {
        key: nearest(str(key).lower(), known, similarity=0.75) for key in config if key not in known
    }


def check_combination(
    where: str, *, fp16: bool, bf16: bool, init_weights: str | None, distills: bool
) -> None:
    """Refuse keys that do not go together, in our loop and in arcface_torch's.

    Args:
        where: what to call the config in messages.
        fp16: with ``bf16`` and ``init_weights``, as the config has them.
        distills: whether the config has a ``cakd`` entry.

    Raises:
        ConfigError: they do not.
    """
    if fp16 and bf16:
        raise ConfigError(f"{where}: fp16 and bf16 are both set; choose one")
    if init_weights is not None and distills:
        raise ConfigError(
            f"{where}.init_weights is for a plain model: in distillation set cakd.student_weights"
        )


def check_centers(where: str, *, init_centers: str | None, freeze_centers: bool) -> None:
    """Refuse to freeze class centres that nothing was learned in.

    Args:
        where: what to call the config in messages.
        init_centers: with ``freeze_centers``, as the config has them.

    Raises:
        ConfigError: ``freeze_centers`` without ``init_centers``.
    """
    if freeze_centers and init_centers is None:
        raise ConfigError(
            f"{where}.freeze_centers would keep random class centres: set init_centers to the "
            "checkpoint_gpu_*.pt of a finished run"
        )


def execute_config(path: Path) -> dict[str, Any]:
    """The ``config`` that a config file defines, as it stands there: nothing is checked.

    Args:
        path: the file; it is executed, with its own folder importable, and a shipped recipe
            with those of all recipes.

    Raises:
        ConfigError: no such file, or one that does not run or defines no ``config``.
    """
    if not path.is_file():
        raise ConfigError(f"config {path}: no such file")
    folders = [str(folder) for folder in import_folders(path)]
    before = set(sys.modules)
    sys.path[:0] = folders
    try:
        names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        message = f"config {path} does not run: {type(error).__name__}: {error}"
        raise ConfigError(" ".join(message.split())) from error
    finally:
        for folder in folders:
            sys.path.remove(folder)
        # Shared pieces are mutable; the next config must see them fresh.
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin and str(Path(origin).resolve().parent) in folders:
                del sys.modules[name]
    if not isinstance(names.get("config"), dict):
        raise ConfigError(f"config {path} defines no `config = edict(...)`")
    return names["config"]


def _names_in(value: Any) -> Iterator[Any]:
    """The keys of all entries in a value."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _names_in(inner)


def _override(config: dict, text: str, known: set[str]) -> None:
    key, equals, value = text.partition("=")
    text = " ".join(text.split())[:_SHOWN]  # in messages, which are of one line
    if not equals:
        raise ConfigError(f"--set {text}: write key=value")
    steps = key.strip().split(".")
    if steps[0] not in known:
        raise ConfigError(
            f"--set {text}: unknown key {steps[0]!r}; {did_you_mean(steps[0], known)}"
        )
    # What is no literal is a plain string, as a path is.
    with (
        contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", SyntaxWarning)  # of what is no literal either
        warnings.simplefilter("ignore", DeprecationWarning)
        value = ast.literal_eval(value)
    for name in _names_in(value):
        if not isinstance(name, str) or hasattr(EasyDict, name):
            shown = repr(name)[:_SHOWN]
            raise ConfigError(f"--set {text}: {shown} is the name of no setting")
    place: Any = config
    for done, step in enumerate(steps, start=1):
        where = ".".join(steps[: done - 1])
        if isinstance(place, list):
            if not re.fullmatch("[0-9]{1,9}", step) or int(step) >= len(place):
                raise ConfigError(f"--set {text}: {where} has entries 0 to {len(place) - 1}")
            at: int | str = int(step)
        elif isinstance(place, dict):
            if hasattr(EasyDict, step):  # an EasyDict takes it for an attribute
                raise ConfigError(f"--set {text}: {step!r} is the name of no setting")
            at = step
        else:
            raise ConfigError(f"--set {text}: {where} is not an entry")
        if done == len(steps):
            place[at] = value
            return
        inner = place.get(at) if isinstance(place, dict) else place[int(at)]
        if inner is None and steps[:done] == ["cakd", "losses"] and steps[done].isdigit():
            inner = unsaid_losses(place)
        elif inner is None:
            inner = {}
        elif isinstance(inner, tuple):
            inner = list(inner)
        place[at] = inner
        place = place[at]  # an EasyDict stores a copy of what it is given
