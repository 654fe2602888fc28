"""Images of one part of a set that show somebody, or the very photograph, of another part."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import timm
import torch

from arcface_cakd.data.images import decode_crop
from arcface_cakd.evaluation import embed

# People are in one part only by LFW's names, so what the teacher takes for one person across parts
# is a wrong name, a photograph that is there twice, or a twin (one couple is). Its cosines leave no
# doubt where to cut: 29 pairs across the parts are above 0.5, of six couples of people; of the 24.4
# million that are left none is above 0.49, while 94 in 100 pairs of one person are above 0.5.
NEAR_DUPLICATE = 0.5


def embed_crops(weights: Path, parts: Mapping[str, Sequence[bytes]]) -> dict[str, np.ndarray]:
    """Unit embeddings (N, 512) of the encoded crops of each part, by EdgeFace-XS.

    timm's network as such, not a teacher of the package's: what is in a set must not hang on what
    is trained with it.

    Args:
        weights: as ``real_faces.py`` writes them.
        parts: encoded crops, by the part's name.
    """
    network = timm.create_model("edgenext_x_small", num_classes=512)
    state = torch.load(weights, weights_only=True)
    network.load_state_dict({key.removeprefix("trunk."): value for key, value in state.items()})
    units = {}
    for name, encoded in parts.items():
        images = np.stack([decode_crop(crop) for crop in encoded])
        embeddings = embed(network, images, description=f"embedding {name}")
        units[name] = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return units


def near_duplicates(
    embeddings: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]]
) -> list[tuple[str, str, str, str, str]]:
    """Every couple of images of two parts whose cosine is at least ``NEAR_DUPLICATE``.

    Args:
        embeddings: unit rows, by part.
        names: of the images, in the same order, by part.

    Returns:
        (part, image, other part, other image, cosine) of each, the most alike first.
    """
    found = []
    for one, other in combinations(embeddings, 2):
        cosines = embeddings[one] @ embeddings[other].T
        for i, j in zip(*np.nonzero(cosines >= NEAR_DUPLICATE), strict=True):
            found.append((-cosines[i, j], one, names[one][i], other, names[other][j]))
    return [(*rest, f"{-cosine:.3f}") for cosine, *rest in sorted(found)]
