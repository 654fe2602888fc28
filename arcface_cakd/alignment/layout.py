"""Where the local centres, the anchors and the patches of both sides lie, and how far apart."""

import torch
from torch import Tensor

from arcface_cakd.alignment.geometry import (
    Anchor,
    FaceDistance,
    Placing,
    anchor_places,
    center_places,
    facial_distance,
    patch_places,
)
from arcface_cakd.landmarks import CROP_SIZE


class FaceLayout:
    """The places that URFM looks from and at, and the distances D between them.

    Args:
        grids: (H, W) of the patches, and ``extents``: the pixels that they cover, by side.
        num_centers: and the other settings: as ``URFM`` has them.
        saliency_map: see ``geometry.saliency_distance``.

    Attributes:
        places: (n, 2) float64 each, in pixels of the crop, by the ArcFace template: of the local
            centres (``"center"``), the anchors (``"anchor"``) and the patches of each side.

    Raises:
        ConfigError: ``num_centers`` does not fit ``placing``.
    """

    def __init__(
        self,
        grids: dict[str, tuple[int, int]],
        extents: dict[str, float],
        num_centers: int,
        placing: Placing,
        anchor: Anchor,
        face_distance: FaceDistance,
        face_weight: float,
        saliency_map: Tensor | None = None,
    ):
        self.places = {
            "center": center_places(num_centers, placing),
            "anchor": anchor_places(anchor),
            **{side: patch_places(grid, extents[side]) for side, grid in grids.items()},
        }
        self._num_centers, self._placing, self._anchor = num_centers, placing, anchor
        self._face_distance, self._face_weight = face_distance, face_weight
        self.use_map(saliency_map)
        self._beside = self.places  # the same on the device of the landmarks seen last

    def use_map(self, saliency_map: Tensor | None, extent: float = CROP_SIZE) -> None:
        """Measure saliency by another map from now on, see ``geometry.saliency_distance``."""
        self._saliency_map, self._map_extent = saliency_map, extent

    def to_anchors(self, landmarks: Tensor | None = None) -> Tensor:
        """Distances from the local centres to the anchors, (L, A) float64 in units.

        Args:
            landmarks: (B, 5, 2) of a batch of faces, on any device, in place of the template's;
                what depends on them is (B, L, A), on their device.
        """
        landmarks, anchors = self._measured(landmarks, "anchor")
        if landmarks is not None and self._anchor != "center":
            anchors = anchor_places(self._anchor, landmarks)
        return self._distance(anchors, landmarks)

    def to_patches(self, side: str, landmarks: Tensor | None = None) -> Tensor:
        """Distances from the local centres to the patches of a side, (L, N), as above."""
        landmarks, patches = self._measured(landmarks, side)
        return self._distance(patches, landmarks)

    def _measured(self, landmarks: Tensor | None, key: str) -> tuple[Tensor | None, Tensor]:
        """The landmarks in float64, and the places of ``key`` beside them."""
        if landmarks is None:
            return None, self.places[key]
        if self._beside[key].device != landmarks.device:
            self._beside = {name: at.to(landmarks.device) for name, at in self.places.items()}
        return landmarks.to(torch.float64), self._beside[key]

    def _distance(self, to: Tensor, landmarks: Tensor | None) -> Tensor:
        centers = (self.places if landmarks is None else self._beside)["center"]
        if landmarks is not None and self._placing == "landmarks":
            centers = center_places(self._num_centers, self._placing, landmarks)
        saliency_map = self._saliency_map
        if saliency_map is not None:
            saliency_map = saliency_map.to(to.device)
        return facial_distance(
            centers,
            to,
            self._face_distance,
            self._face_weight,
            saliency_map,
            self._map_extent,
            landmarks,
        )
