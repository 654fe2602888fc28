"""Pictures of evaluation."""

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from arcface_cakd.data.text_lines import table_field
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.roc import RocCurve
from arcface_cakd.extras import extra
from arcface_cakd.files import atomic_path

_MADE = "arcface-cakd, ROC curves"  # what a picture says of itself
# Which of its metadata says it, in the formats that have any.
_SAYS = {"png": "Software", "pdf": "Creator", "svg": "Creator", "ps": "Creator", "eps": "Creator"}


class HasRoc(Protocol):
    """A result that a ROC curve can be drawn of."""

    @property
    def roc(self) -> RocCurve: ...

    @property
    def auc(self) -> float: ...


def check_picture(path: str | os.PathLike) -> None:
    """Say, before any work, whether a picture can be written to a path, by its suffix.

    Raises:
        EvaluationError: it names none, or a folder is there, or a file that ``plot_roc`` did not
            write.
        MissingPackageError: matplotlib, which draws, is not installed.
        OSError: a file there cannot be read.
    """
    _check_format(path)
    if Path(path).exists() and not _is_ours(path):
        raise EvaluationError(
            f"picture {path}: is there, does not say that it shows ROC curves of arcface-cakd, "
            f"as .{', .'.join(_SAYS)} can, and would be replaced: remove it, or name another file"
        )


def label_text(text: str) -> str:
    """A text for a title or a legend, which matplotlib shows as it is.

    Else it takes what stands between dollars for mathematics, leaves what begins with ``_`` out
    of legends, and cannot draw what is no UTF-8, as in a file's name.
    """
    text = table_field(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _is_ours(path: str | os.PathLike) -> bool:
    """Whether ``plot_roc`` wrote a picture, or a file is empty, as mktemp leaves it."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return True
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(_MADE.encode()) >= 0


def _check_format(path: str | os.PathLike) -> None:
    extra("matplotlib", "report", f"picture {path}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if Path(path).is_dir():
        raise EvaluationError(f"picture {path}: a folder: name a file in it")
    known = FigureCanvasAgg.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in known:
        raise EvaluationError(
            f"picture {path} must end in .{', .'.join(sorted(known))}: that chooses its format"
        )


def plot_roc(
    results: Mapping[str, HasRoc], path: str | os.PathLike, title: str | None = None
) -> None:
    """Draw the ROC curves of results over a logarithmic FAR axis into a picture file.

    A curve is drawn solid where at least ten negative pairs are accepted, and dotted below,
    where it is an accident of the sample.

    Args:
        results: by the name in the legend, which gets the AUC added.
        path: of the picture; its suffix chooses the format.
        title: above the picture.

    Raises:
        EvaluationError: the suffix names no format, or a folder is there.
        MissingPackageError: matplotlib, which draws, is not installed.
    """
    _check_format(path)
    # Figure itself, not pyplot, which has state and picks a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, result in results.items():
        curve = result.roc
        label = f"{label_text(name)} (AUC {100 * result.auc:.2f} %)"
        (line,) = axes.step(curve.far, curve.tar, where="post", linestyle=":", linewidth=1)
        # Above 1, which no FAR is, where there are too few pairs to trust any.
        trusted = curve.far >= (curve.lowest_far or float("inf"))
        axes.step(
            curve.far[trusted],
            curve.tar[trusted],
            where="post",
            color=line.get_color(),
            label=label,
        )
    axes.set_xscale("log")
    axes.set_xlim(min(1 / result.roc.negatives for result in results.values()), 1)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("FAR, share of negative pairs accepted (dotted: fewer than ten of them)")
    axes.set_ylabel("TAR, share of positive pairs accepted")
    axes.grid(which="both", alpha=0.25)
    axes.legend(loc="lower right")
    if title:
        axes.set_title(label_text(title))
    key = _SAYS.get(Path(path).suffix[1:].lower())
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=120, metadata={key: _MADE} if key else None)
