"""Weights into networks and out of them: whole and fitting, or not at all."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from arcface_cakd.backbones.base import FaceBackbone
from arcface_cakd.backbones.factory import get_model
from arcface_cakd.backbones.weights.classifier import with_own_head
from arcface_cakd.backbones.weights.description import (
    ModelDescription,
    description_path,
    named_with_description,
    read_description,
)
from arcface_cakd.backbones.weights.errors import WeightsError
from arcface_cakd.backbones.weights.files import read_weights, some
from arcface_cakd.backbones.weights.resampling import TRUNK, resampled
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.files import atomic_path, sha256_of
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.tensor_files import write_tensors

# What wraps a network, and so leads all its keys: torch.compile, CVLface, and others.
_WRAPPERS = ("_orig_mod.", "module.", "model.", "net.")
_TIMM = "timm:"
_LANDMARKS = ("keypoint_linear.", ".rpe_")  # in keys of CVLface's KP-RPE, and of iRPE
_COUNT = "num_batches_tracked"  # of a BatchNorm, of use without momentum alone
_PROBES = (2, 3)  # embedding widths whose shapes are compared to see which depend on the width


def copy_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a state dict into a model, all of it or nothing.

    Args:
        model: any module.
        state: must have exactly the model's keys and shapes; floating-point values may be of
            another precision. A prefix that all its keys have (``net.`` or ``model.``, as CVLface
            writes them) is dropped where the model's own have it not, keys that others publish
            the network with are renamed, see ``FaceBackbone.from_published``, and a timm trunk's
            weights for another image or window size are resampled, see ``resampled``. Counts of
            batches, which no computation here looks at, may be missing or of another type.
        source: what to call the weights in messages.

    Raises:
        WeightsError: keys that are missing, unexpected, of another shape or kind, or whose
            values are not finite. The model is as it was.
    """
    own = model.state_dict()
    state = _with_counts(own, resampled(model, _renamed(model, state), source))
    faults = []
    missing = [key for key in own if key not in state]
    if missing:
        faults.append(f"{len(missing)} missing ({some(missing)})")
    unexpected = [key for key in state if key not in own]
    if unexpected:
        faults.append(f"{len(unexpected)} unexpected ({some(unexpected)})")
    shared = [key for key in own if key in state]
    reshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in shared
        if state[key].shape != own[key].shape
    ]
    if reshaped:
        faults.append(f"{len(reshaped)} of another shape ({some(reshaped)})")
    retyped = [
        f"{key} {state[key].dtype} instead of {own[key].dtype}"
        for key in shared
        if state[key].dtype != own[key].dtype
        and not (state[key].is_floating_point() and own[key].is_floating_point())
    ]
    if retyped:
        faults.append(f"{len(retyped)} of another type ({some(retyped)})")
    if faults:
        raise WeightsError(
            f"{source} do not fit {type(model).__name__}, which has {len(own)} keys: "
            f"{', '.join(faults)}; {_advice(own, state)}"
        )
    broken = [key for key in shared if not torch.isfinite(state[key].to(own[key].dtype)).all()]
    if broken:
        raise WeightsError(
            f"{source} are not finite in {len(broken)} keys ({some(broken)}); "
            "they come from a run that diverged: use an earlier checkpoint"
        )
    model.load_state_dict(state)


def _with_counts(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the model's own count of batches where a BatchNorm of it has none, as in
    files of before torch 0.4.1 and of other frameworks, and in the model's type where it has."""
    state = dict(state)
    for key, value in own.items():
        beside = key.removesuffix(_COUNT) + "running_mean"
        if key.endswith(_COUNT) and beside in state:
            state[key] = state.get(key, value).to(value.dtype)
    return state


def load_weights(model: nn.Module, path: str | os.PathLike) -> None:
    """Load weights into a model, strictly; a failure leaves the model as it was.

    Args:
        model: any module.
        path: what ``read_weights`` reads.

    Raises:
        WeightsError: the file cannot be read (see ``read_weights``), or its weights are another
            network's (see ``check_network``) or do not fit (see ``copy_weights``).
    """
    check_network(path, getattr(model, "built_as", None))
    copy_weights(model, read_weights(path), f"weights {named_with_description(path)}")


def check_network(weights: str | os.PathLike, network: str | None) -> None:
    """Refuse weights that are another network's, as the ``model.json`` beside them says.

    They may fit it all the same, as those of ``r10_narrow`` fit ``r10_mini``. Two names of what
    computes the same, such as ``vit_b`` and ``vit_b_dp005_mask_005``, are one network.

    Args:
        weights: what ``read_weights`` reads, there or not.
        network: the name that ``get_model`` knows the network by; None: it is not known.

    Raises:
        WeightsError: they are.
    """
    said = None if network is None else read_description(weights)
    if said is None or network is None or said.network == network:
        return
    if not _compute_the_same(said.network, network):
        beside = description_path(weights)
        raise WeightsError(
            f"weights {weights} are of {said.network!r}, as {beside.name} beside them says, and "
            f"not of {network!r}: set the network to {said.network!r}, take other weights, or give "
            f"a copy without {beside.name} to have these all the same"
        )


@torch.no_grad()
def _compute_the_same(one: str, other: str) -> bool:
    """Whether two names stand for one network, as an image with the same weights tells."""
    image = torch.linspace(-1, 1, 3 * CROP_SIZE**2).view(1, 3, CROP_SIZE, CROP_SIZE)
    with torch.random.fork_rng(devices=[]):
        try:
            first, second = (
                get_model(name, num_features=_PROBES[0]).eval() for name in (one, other)
            )
            second.load_state_dict(first.state_dict())
            return torch.equal(first(image), second(image))
        except (ArcfaceCakdError, RuntimeError):  # an unknown name, or other keys
            return False


def start_from(model: nn.Module, source: str) -> None:
    """Give a model that is to be trained its first weights; the random state is left as it was.

    Where they are those of a classifier, as timm's ImageNet weights or Microsoft's of Swin, all of
    the model's trunk must be there, and its face head stays as it is: see ``with_own_head``.

    Args:
        model: any module.
        source: what ``read_weights`` reads, or ``timm:<model>`` for the weights that timm
            downloads for that model.

    Raises:
        WeightsError: they cannot be had, are another network's (see ``check_network``), or do not
            fit (see ``copy_weights``).
    """
    check_network(source, getattr(model, "built_as", None))
    name = source
    if source.startswith(_TIMM):
        state = _from_timm(source.removeprefix(_TIMM))
    else:
        state = read_weights(source)
        name = named_with_description(source)
    if hasattr(model, "trunk"):
        bare = _renamed(model, state)
        if not any(key.startswith(TRUNK) for key in bare):
            state = with_own_head(model, bare, f"weights {name}")
    copy_weights(model, state, f"weights {name}")


def _from_timm(name: str) -> dict[str, Tensor]:
    import timm

    try:
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # unknown names, models without weights, and every kind of network
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise WeightsError(
            f"weights timm:{name} cannot be had ({reason}): see timm.list_pretrained(), or "
            "download the file and give its path"
        ) from error


def save_weights(model: nn.Module, path: str | os.PathLike) -> None:
    """Write a model's state dict, as arcface_torch's scripts load it, atomically.

    Keys, shapes and module versions are those of ``torch.save(model.state_dict(), path)``;
    the tensors are on the CPU and contiguous, whatever device and memory format the model uses.
    Equal weights give equal bytes.

    Raises:
        WeightsError: the file cannot be written, as on a full disk; a former one stays.
    """
    with atomic_path(path) as partial:
        _write(model, partial, path)


def save_model(model: nn.Module, path: str | os.PathLike, description: ModelDescription) -> None:
    """``save_weights``, and beside them what they are of: see ``ModelDescription``.

    Raises:
        WeightsError: a file cannot be written, as on a full disk; the former two stay.
    """
    # The weights are renamed first, the description at once behind them.
    with atomic_path(description_path(path)) as beside, atomic_path(path) as partial:
        _write(model, partial, path)
        beside.write_text(description.to_json(sha256_of(partial)), encoding="utf-8")


def _write(model: nn.Module, partial: Path, path: str | os.PathLike) -> None:
    """Write a model's state dict to ``partial``, which is to become ``path``."""
    state = model.state_dict()
    for key, value in state.items():
        state[key] = value.cpu().contiguous()
    try:
        write_tensors(partial, state)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be written ({error.strerror}): free space on its disk"
        ) from error


def embedding_size_of(state: Mapping[str, Tensor], build: Callable[[int], nn.Module]) -> int | None:
    """The width E of the embedding for which weights were saved.

    Args:
        state: a state dict, as ``read_weights`` gives it.
        build: makes the network for an embedding of given width, as
            ``lambda width: get_model("mbf", num_features=width)``.

    Returns:
        the width, read off the shapes that depend on it; None where they do not agree on one or
        are not there.
    """
    probes = [_probe(build, width) for width in _PROBES]
    one, other = ({k: v.shape for k, v in model.state_dict().items()} for model in probes)
    state = _renamed(probes[0], state)
    widths = set()
    for key, shape in one.items():
        if key not in state or state[key].dim() != len(shape):
            continue
        for axis, (size, grown) in enumerate(zip(shape, other[key], strict=True)):
            if (size, grown) == _PROBES:
                widths.add(state[key].shape[axis])
    return widths.pop() if len(widths) == 1 else None


def _probe(build: Callable[[int], nn.Module], width: int) -> nn.Module:
    try:
        with torch.device("meta"):  # shapes only: no memory, no random numbers
            return build(width)
    except Exception:  # a user's network may compute with numbers while it is built
        return build(width)


def _advice(own: Iterable[str], state: Iterable[str]) -> str:
    """What to do about weights that do not fit."""
    own = set(own)
    if any(part in key for key in state for part in _LANDMARKS):
        return (
            "they are of a network with relative positions or landmarks in its attention (KP-RPE, "
            "iRPE), which no network here has: take one without"
        )
    if not own & set(state) and any(TRUNK + key in own for key in state):
        return (
            "they are a trunk's, without a face head: train a face model from them first "
            "(init_weights), and give its model.pt"
        )
    return "give the network and width that they were saved from"


def _renamed(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under the model's own keys, as far as it is known under which it is."""
    bare = _unwrapped(state, model.state_dict())
    return model.from_published(bare) if isinstance(model, FaceBackbone) else bare


def _unwrapped(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """The state dict without prefixes of wrappers that all its keys have and not all of ``own``."""
    state, own = dict(state), list(own)
    found = True
    while found and state:
        found = False
        for prefix in _WRAPPERS:
            if all(key.startswith(prefix) for key in state) and not all(
                key.startswith(prefix) for key in own
            ):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                found = True
    return state
