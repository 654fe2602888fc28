"""Each term and the diagnostic figures, where the host logs its loss."""

from collections.abc import Callable
from typing import Any

from torch import nn

from arcface_cakd.arcface_torch.host_distiller import distiller_of


def log_to(callback: Any, backbone: nn.Module, writer: Any, wandb_logger: Any) -> None:
    """Make a host's ``CallBackLogging`` report the distillation too; nothing for a plain backbone.

    Args:
        callback: the host's; ``log_line`` finds what is left on it.
        backbone: in DistributedDataParallel.
        writer: TensorBoard's SummaryWriter, None on ranks other than 0.
        wandb_logger: a wandb run, or None.
    """
    distiller = distiller_of(backbone)
    if distiller is None:
        return

    def report(step: int) -> str:
        figures = distiller.figures
        if writer is not None:
            for name, value in figures.items():
                writer.add_scalar(f"cakd/{name}", value, step)
        if wandb_logger is not None:
            # It joins the host's own entry of the next step. Not under TensorBoard's names,
            # which the host has wandb copy.
            wandb_logger.log({f"Distillation/{n}": v for n, v in figures.items()}, commit=False)
        return "".join(f"   {name} {value:.4g}" for name, value in figures.items())

    callback.cakd = report


def log_line(callback: Any, message: str, step: int) -> str:
    """The host's log line, with the figures of the distillation if there is one."""
    report: Callable[[int], str] | None = getattr(callback, "cakd", None)
    return message if report is None else message + report(step)
