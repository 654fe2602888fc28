"""In which precision something is computed, whatever autocast is around it."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar, cast

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Tensor])


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def amp_dtype(fp16: bool, bf16: bool) -> torch.dtype | None:
    """What ``autocast`` takes, for the keys ``fp16`` and ``bf16`` of a config."""
    if fp16:
        return torch.float16
    return torch.bfloat16 if bf16 else None


def autocast(device_type: str, dtype: torch.dtype | None) -> AbstractContextManager:
    """Autocast to ``dtype``; None is full precision, whatever autocast is around it."""
    if not torch.amp.is_autocast_available(device_type):  # meta, which only computes shapes
        return nullcontext()
    return torch.autocast(device_type, dtype=dtype, enabled=dtype is not None)


def full_precision(function: Function) -> Function:
    """Decorator: positional tensors come in at least float32, and autocast is off inside.

    Autocast would form the products of float32 features in half precision: similarities of
    faces that differ in the third digit would then be equal.
    """

    @functools.wraps(function)
    def in_full_precision(*tensors: Tensor, **settings):
        with autocast(tensors[0].device.type, None):
            return function(*map(at_least_float32, tensors), **settings)

    return cast(Function, in_full_precision)  # the parameters are the same
