"""What a network costs for one face, whatever runs it."""

import torch
from torch import nn

from arcface_cakd.landmarks import CROP_SIZE


def parameters(backbone: nn.Module) -> int:
    """How many numbers its parameters are."""
    return sum(parameter.numel() for parameter in backbone.parameters())


def multiply_adds(backbone: nn.Module) -> int:
    """Those of convolutions, linear layers and attention for one face, as torch counts them.

    The backbone is left as it is, its modules' modes too.
    """
    from torch.utils.flop_counter import FlopCounterMode

    first = next(backbone.parameters())
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone(torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, device=first.device))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return counter.get_total_flops() // 2
