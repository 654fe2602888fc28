"""What both loops, ours and arcface_torch's, read from a checkpoint and put into one."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from arcface_cakd.engine.errors import START_ANEW, CheckpointError, UnreadableCheckpointError
from arcface_cakd.tensor_files import DamagedFile, load_tensors

FORMAT = 1  # of what is written; 0 had no former sets and did not say its format
_PROMPTS = "prompts.prompts."  # how a distiller's state dict names APT's prompts


def read_checkpoint(
    path: Path, key: str, otherwise: str, mapped: bool = False, checked: bool = True
) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; no file can run code.

    Args:
        path: of one rank's file.
        key: that every checkpoint of the kind that is asked for has.
        otherwise: what one without it is, for the message.
        mapped: leave tensors in the file until somebody takes them.
        checked: hold all of the file against its digest, which reads it.

    Raises:
        UnreadableCheckpointError: there is none, it cannot be read, or it is of another kind.
        CheckpointError: a later version of this package wrote it.
    """
    if not path.is_file():
        raise UnreadableCheckpointError(
            f"there is no checkpoint {path}: save_all_states=True writes one"
        )
    try:
        content = load_tensors(path, mapped=mapped, checked=checked)
    except DamagedFile as error:
        raise UnreadableCheckpointError(f"checkpoint {path} is damaged: {error}") from error
    except Exception as error:  # what is no checkpoint raises nearly anything
        raise UnreadableCheckpointError(
            f"checkpoint {path} cannot be read ({type(error).__name__}): it is damaged or not a "
            "checkpoint"
        ) from error
    if not isinstance(content, dict) or key not in content:
        raise UnreadableCheckpointError(f"{path} {otherwise}")
    written = content.get("format", 0)
    if written > FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {written}, and this version of arcface_cakd reads up to "
            f"{FORMAT}: install a newer one, or {START_ANEW}"
        )
    return content


def batch_size_of(content: Mapping[str, Any]) -> int | None:
    """The images of a rank's step in the run that wrote a checkpoint, this loop's or a patched
    arcface_torch's; None where it does not say."""
    if content.get("config"):
        return content["config"]["batch_size"]
    settings = (content.get("cakd") or {}).get("settings") or {}
    said = settings.get("batch_size", "")
    return int(said) if said.isdecimal() else None


def step_of(path: Path) -> int | None:
    """The micro-steps that a checkpoint says it has done; None where there is none or it is cut."""
    try:
        content = read_checkpoint(path, "global_step", "holds no step", mapped=True, checked=False)
        return content["global_step"]
    except CheckpointError:
        return None


def pending_gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor | None]:
    """The gradients of an optimiser step that is not complete, for a checkpoint."""
    return [parameter.grad for parameter in parameters]


def rescaling(then: Mapping[str, Any] | None, now: torch.amp.GradScaler | None) -> float:
    """What gradients are multiplied by that were summed under another gradient scaler.

    A run may go on in another precision than it was stopped in, and what it sums up from there
    on is scaled otherwise.

    Args:
        then: the state of the stopped run's scaler; None or empty where there was none.
        now: the resumed run's, once it has its state; None where there is none.
    """
    former = then["scale"] if then else 1.0
    return (now.get_scale() if now is not None and now.is_enabled() else 1.0) / former


def restore_gradients(
    parameters: Iterable[nn.Parameter], gradients: Iterable[Tensor | None], factor: float = 1.0
) -> None:
    """Give parameters what ``pending_gradients`` found, in the same order, times ``factor``."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.to(parameter.device)
        if parameter.grad is not None and factor != 1.0:
            parameter.grad.mul_(factor)


def check_shapes(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Hold a state of the checkpoint ``path`` against the module that is to take it.

    Raises:
        CheckpointError: a key is missing, unexpected or of another shape, or parameters stand in
            another order, by which alone the optimiser's state knows them.
    """
    here = {name: tensor.shape for name, tensor in module.state_dict().items()}
    there = {name: tensor.shape for name, tensor in state.items()}
    prompts = [shape[0] for name, shape in there.items() if name.startswith(_PROMPTS)]
    distils = any(name.startswith("student.") for name in here)
    if prompts and distils and not any(name.startswith(_PROMPTS) for name in here):
        raise CheckpointError(
            f"checkpoint {path} is of a run with prompts, and cakd.prompts is None, as it now is "
            f"by default: set cakd.prompts=edict(num_tokens={prompts[0]}), or {START_ANEW}"
        )
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise CheckpointError(
                f"checkpoint {path} does not fit the config: {name} is "
                f"{_size(there.get(name))} there and {_size(here.get(name))} here: set "
                f"{_entry_of(name)} back, or {START_ANEW}"
            )
    ours = [name for name, _ in module.named_parameters()]
    learned = set(ours)
    theirs = [name for name in state if name in learned]
    for present, former in zip(ours, theirs, strict=True):
        if present != former:
            raise CheckpointError(
                f"checkpoint {path} does not fit the config: {former} stands there where "
                f"{present} is here: set {_entry_of(former)} back, losses in their former order, "
                f"or {START_ANEW}"
            )


def _entry_of(name: str) -> str:
    """What of the config a tensor comes from."""
    return "adaface" if name.startswith("margin_softmax.") else "the cakd entry"


def _size(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(tuple(shape))
