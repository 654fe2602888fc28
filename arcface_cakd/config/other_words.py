"""What users write that means something which is written otherwise here."""

import warnings
from pathlib import Path
from typing import Any

from arcface_cakd.errors import ArcfaceCakdWarning

# Of configs for older versions of arcface_torch: a loss by name, whose scale was 64.
_MARGIN_OF_LOSS = {"arcface": (1.0, 0.5, 0.0), "cosface": (1.0, 0.0, 0.4)}


def margin_meant_by(loss: Any) -> tuple[float, float, float] | None:
    """``margin_list`` of a loss that older configs name (``loss = "cosface"``), where known."""
    return _MARGIN_OF_LOSS.get(str(loss).lower())


def take_up_loss(raw: dict[str, Any], path: Path) -> None:
    """Older configs name a loss where newer ones have ``margin_list``: taken up, or said."""
    loss = raw.pop("loss", None)
    meant, given = margin_meant_by(loss), raw.get("margin_list")
    if loss is None or (isinstance(given, list | tuple) and tuple(given) == meant):
        return
    said = "is ignored: margin_list says the loss"
    if meant is not None and "margin_list" not in raw:
        raw["margin_list"] = meant
        said = f"is taken up as margin_list {meant}"
    warnings.warn(f"{path}: loss {loss!r} {said}", ArcfaceCakdWarning, stacklevel=3)


def data_folder(rec: str) -> str:
    """The folder of a data set that is given by its ``train.rec``; any other path as it is."""
    path = Path(rec)
    return str(path.parent) if path.name in ("train.rec", "train.idx") else rec
