"""How many directions a set of features really uses."""

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """Effective rank of features: exp of the entropy of their normalised singular values.

    erank = exp(-sum_k p_k ln p_k), p_k = sigma_k / sum sigma (Roy and Vetterli, EUSIPCO 2007,
    definition 1). 1 means that all rows are multiples of one, min(rows, d) an even spread over
    all directions. The features are not centred: collapsed ones, a constant with a little noise
    on it, have a rank near 1, but less their mean they would have that of the noise.

    Args:
        features: (..., d); leading dimensions count as rows.

    Returns:
        a number from 1 to d, computed in float64; 0 where all features are zero, NaN where some
        are not finite.
    """
    rows = features.detach().flatten(0, -2).double()
    scale = rows.abs().max()
    if scale == 0:
        return 0.0
    if not torch.isfinite(scale):
        return float("nan")
    rows = rows / scale
    # Singular values by the smaller of the two products, whose size does not grow with the batch.
    if rows.shape[0] < rows.shape[1]:
        scatter = rows @ rows.T
    else:
        scatter = rows.T @ rows
    eigenvalues = torch.linalg.eigvalsh(scatter)
    noise = eigenvalues.max() * torch.finfo(eigenvalues.dtype).eps * len(eigenvalues)
    sigma = eigenvalues[eigenvalues > noise].sqrt()
    p = sigma / sigma.sum()
    return torch.exp(-(p * p.log()).sum()).item()
