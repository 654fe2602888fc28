"""A look at the host's config before anything is written or built."""

import logging
from pathlib import Path
from typing import Any

from arcface_cakd.arcface_torch.user_errors import exiting_on_user_error
from arcface_cakd.config import (
    CakdConfig,
    ConfigError,
    check_combination,
    data_folder,
    margin_meant_by,
    unknown_keys,
)
from arcface_cakd.data.folder import FaceFolder
from arcface_cakd.data.image_tree import ImageTree
from arcface_cakd.data.loader import open_images
from arcface_cakd.distributed import failing_together, is_main, world_size
from arcface_cakd.engine.checkpoint_sets import former_steps, set_aside_sets
from arcface_cakd.engine.preflight import (
    check_apart,
    check_gradient_acc,
    check_num_classes,
    check_num_image,
    check_output,
    check_warmup,
    hold_output,
    missing_sets,
)
from arcface_cakd.engine.resuming import goes_on, set_aside_model
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.locks import FolderInUseError

logger = logging.getLogger("arcface_cakd")

# What the hooks read, besides the host's own keys: a fork may have keys like other ones.
OURS = {
    "adaface",
    "augment",
    "bf16",
    "cakd",
    "fast_items",
    "force",
    "freeze_centers",
    "init_centers",
    "init_weights",
}


def check_config(cfg: Any) -> None:
    """End the program with one line where the config, its data or its output cannot be meant.

    Called before the host writes its first file. Looked at are keys that resemble ours (a
    ``cadk`` entry would train a plain model), precision, the ``cakd`` entry, ``num_classes``
    against the identities of the data, and in distillation an ``output`` that holds another run, or
    lies, as a cache may, in a folder of people.
    Warnings name keys that resemble the host's, a ``loss`` that has no effect, ``num_classes``
    above the data's, a ``num_image`` of other data, and ``val_targets`` that are not there.

    Without a ``cakd`` entry, data that we cannot read and an output of another run are warnings
    too: the host may do with them what it did before. A collective.

    Args:
        cfg: the host's config, an EasyDict. ``resume="auto"`` becomes True or False, and a ``rec``
            that is a ``train.rec`` its folder.
    """
    begins = False  # again, in an output of its own
    with exiting_on_user_error():
        if cfg.get("resume") == "auto":
            cfg.resume = goes_on(cfg.output)
            begins = not cfg.resume and bool(cfg.get("save_all_states"))
    with exiting_on_user_error(), failing_together():
        _check_keys(cfg)
        check_precision(cfg)
        config = None if cfg.get("cakd") is None else CakdConfig.from_entry(cfg.cakd)
        cfg.rec = data_folder(str(cfg.rec))
        if is_main():
            _check_output(cfg, distills=config is not None, begins=begins)
            _check_data(cfg, config)
            _hold_output(cfg, distills=config is not None)
            if begins:
                set_aside_model(cfg.output)
    if not cfg.resume and former_steps(cfg.output):
        set_aside_sets(cfg.output)  # of a run that this one writes over


def check_precision(cfg: Any) -> None:
    """Refuse keys of precision and initial weights that do not go together.

    Raises:
        ConfigError: they do not.
    """
    bf16 = cfg.get("bf16") or False
    if not isinstance(bf16, bool):
        raise ConfigError(f"config.bf16 must be True or False, got {bf16!r}")
    check_combination(
        "config",
        fp16=cfg.fp16,
        bf16=bf16,
        init_weights=cfg.get("init_weights"),
        distills=cfg.get("cakd") is not None,
    )


def _check_keys(cfg: Any) -> None:
    for key, near in unknown_keys(cfg).items():
        if near in OURS:
            raise ConfigError(f"config has no key {key!r}; did you mean {near!r}?")
        if near and is_main():
            logger.warning("config.%s: no key of arcface_torch; did you mean %r?", key, near)
    loss = getattr(cfg, "loss", None)  # of configs for older versions of the host
    meant = margin_meant_by(loss)
    if loss is not None and meant != tuple(cfg.margin_list) and is_main():
        advice = f"; to have it set margin_list={meant}" if meant else ""
        logger.warning(
            "config.loss %r has no effect: margin_list %s says the loss%s",
            loss,
            tuple(cfg.margin_list),
            advice,
        )


def _check_output(cfg: Any, distills: bool, begins: bool) -> None:
    try:
        check_output(cfg.output, resume=cfg.resume, force=begins or bool(cfg.get("force")))
    except ConfigError as error:
        if distills:
            raise
        logger.warning("%s", error)


def _hold_output(cfg: Any, distills: bool) -> None:
    try:
        hold_output(cfg.output)
    except FolderInUseError as error:
        if distills:
            raise
        logger.warning("%s", error)


def _say_what_the_host_leaves_out(images: FaceFolder | ImageTree, rec: str) -> None:
    """Warn of images that torchvision's ImageFolder, by which the host reads folders, knows not."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    unread = [path for path in images.paths if not path.lower().endswith(IMG_EXTENSIONS)]
    if unread:
        logger.warning(
            "config.rec %s: arcface_torch leaves out %d of %d images, whose suffixes it does not "
            "know, %s first: 'arcface-cakd data pack' makes a train.rec of them all",
            rec,
            len(unread),
            len(images.paths),
            unread[0],
        )


def _check_apart(cfg: Any, config: CakdConfig | None) -> None:
    """Output and cache in a folder of people; torchvision takes hidden folders for people too."""
    cache = None if config is None else config.teacher["cache"]
    places = {"config.output": cfg.output, "cakd.teacher.cache": cache}
    try:
        check_apart(cfg.rec, places, dots_hide=False)
    except ConfigError as error:
        if config is not None:
            raise
        logger.warning("%s", error)


def _check_data(cfg: Any, config: CakdConfig | None) -> None:
    if cfg.rec == "synthetic":  # the host makes it up
        return
    if not Path(cfg.rec).is_dir():
        raise ConfigError(f"config.rec {cfg.rec}: no such folder")
    labelled = config is None or config.needs_labels
    try:
        images = open_images(cfg.rec, labelled=labelled)
    except (ArcfaceCakdError, OSError) as error:
        if config is not None:
            raise
        logger.warning("config.rec: %s", error)
        return
    if isinstance(images, ImageTree):
        loose = sum(Path(path).parent == Path(cfg.rec) for path in images.paths)
        if loose:
            raise ConfigError(
                f"config.rec {cfg.rec}: {loose} images lie in no folder there, and arcface_torch "
                "reads those in folders alone: move them into one"
            )
    if isinstance(images, FaceFolder | ImageTree):
        _say_what_the_host_leaves_out(images, cfg.rec)
        _check_apart(cfg, config)
    if images.num_classes is not None:
        check_num_classes(cfg.num_classes, images.num_classes, cfg.rec)
    check_num_image(cfg.num_image, len(images), cfg.batch_size * world_size(), cfg.rec)
    steps = len(images) // (cfg.batch_size * world_size()) * cfg.num_epoch
    try:
        check_gradient_acc(getattr(cfg, "gradient_acc", 1), steps)
    except ConfigError as error:
        if config is not None:
            raise
        logger.warning("config.%s", error)
    check_warmup(cfg.warmup_epoch, cfg.num_epoch)
    missing_sets(cfg.rec, cfg.val_targets)
