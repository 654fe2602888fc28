"""Stored pixels as what a network takes."""

import numpy as np
import torch
from torch import Tensor


def normalised(planes: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) RGB to float32 in [-1, 1].

    In the roundings of ToTensor and Normalize, which arcface_torch applies, in their order: its
    numbers to the bit. (x - 127.5) / 127.5 would round otherwise.
    """
    return planes.float().div_(255).sub_(0.5).div_(0.5)


def as_batch(images: np.ndarray, device: str | torch.device | None = None) -> Tensor:
    """Stored images, uint8 (B, H, W, 3) RGB, to a batch for a network.

    Args:
        images: any array, read-only ones too.
        device: where the batch is wanted; the pixels travel as bytes. None: the CPU.

    Returns:
        float32 (B, 3, H, W) in [-1, 1], contiguous.
    """
    pixels = torch.tensor(images, device=device).permute(0, 3, 1, 2).contiguous()
    return normalised(pixels)
