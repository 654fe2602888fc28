"""PReLU with a backward pass that a CPU does in a third of the time."""

import torch
from torch import Tensor, nn


class PReLU(nn.PReLU):
    """``torch.nn.PReLU`` (He et al., ICCV 2015, arXiv 1502.01852) to the last digit.

    torch's backward pass asks of one number after another whether it is positive, which on a CPU
    is a third of MobileFaceNet's whole step. Here it is four operations on vectors, with the same
    products and the same sum; where a gradient is infinite, its neighbours come out as NaN instead.
    On other devices, under a tracer or compiler and without gradients it is torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The input (B, C, H, W) where positive, elsewhere times its channel's slope."""
        if not self._in_vectors(x):
            return super().forward(x)
        weight: Tensor = self.weight
        if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
            dtype = torch.get_autocast_dtype("cpu")  # autocast does so with torch's own
            x, weight = x.to(dtype), weight.to(dtype)
        return _PReLU.apply(x, weight)

    def _in_vectors(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dim() == 4
            and self.num_parameters == x.shape[1]
            and torch.is_grad_enabled()
            and not torch.jit.is_tracing()
            and not torch.compiler.is_compiling()
        )


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.prelu(x, weight)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        slopes = weight.view(-1, 1, 1)
        if torch.is_grad_enabled():  # which has a derivative itself
            of_x, of_slopes = torch.ops.aten._prelu_kernel_backward(gradient, x, slopes)
        else:
            of_x = torch.ops.aten.threshold_backward(gradient, x, 0)
            negative = gradient - of_x  # the gradient where x is not positive, elsewhere 0
            of_x.addcmul_(negative, slopes)
            of_slopes = negative.mul_(x)
        return of_x, of_slopes.sum((0, 2, 3))
