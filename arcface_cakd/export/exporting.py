"""A backbone as a file that is known to compute the same."""

import copy
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.export.calibration import check_faces
from arcface_cakd.export.coreml import COREML
from arcface_cakd.export.errors import ExportError
from arcface_cakd.export.formats import Format, Request, format_of
from arcface_cakd.export.litert import LITERT
from arcface_cakd.export.ncnn import NCNN
from arcface_cakd.export.onnx_file import ONNX
from arcface_cakd.export.openvino import OPENVINO
from arcface_cakd.export.parity import compare, references
from arcface_cakd.files import atomic_path, scratch_folder, sync
from arcface_cakd.runtimes import ENDINGS, ending_of, files_of, open_exported

FORMATS: tuple[Format, ...] = (ONNX, LITERT, NCNN, OPENVINO, COREML)
# The largest |file - torch| / |torch| of an embedding. At int8 it only finds what is broken: how
# near the embeddings come is asked for by ``int8.quantised``, and accuracy by ``judge``.
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.5}
_MOST_COMPARED = 64
_PACKAGE = {"Manifest.json", "Data"}  # what a folder of Core ML's holds
_VERIFICATION_SET = re.compile(rb"\x80[\x02-\x05][(\]}c\x95]")  # how a pickle begins


@dataclass(frozen=True)
class ExportReport:
    """An exported file, and how near it comes to torch on the CPU in float32.

    Attributes:
        path: the file, or that of several which names the model.
        size: in bytes, of all of its files.
        precision: "fp32", "fp16" or "int8".
        runtime: what ran it; None: nothing, for what runs such files is not to be had here.
            Then the figures of the comparison are None, too.
        batches: batch sizes at which it was compared.
        compared_on_faces: whether that was on faces, or on random pictures.
        cosine: the lowest cosine between an embedding of the file's and torch's.
        mean_cosine: the mean of those.
        max_abs_diff: the largest difference of one element.
        relative_error: the largest |file - torch| / |torch| of an embedding.
        opset: of an ONNX file.
        exporter: which of torch's exporters made an ONNX file: "torchscript" or "dynamo".
        batch_norms_left: BatchNorms of an ONNX file that could not be folded.
        float_layers: layers of an int8 file that stay in float, because they cost too much.
    """

    path: str
    size: int
    precision: str
    runtime: str | None
    batches: tuple[int, ...]
    compared_on_faces: bool
    cosine: float | None = None
    mean_cosine: float | None = None
    max_abs_diff: float | None = None
    relative_error: float | None = None
    opset: int | None = None
    exporter: str | None = None
    batch_norms_left: int | None = None
    float_layers: tuple[str, ...] = ()


def export_model(
    backbone: nn.Module,
    path: str | os.PathLike,
    precision: str = "fp32",
    *,
    opset: int = 17,
    faces: np.ndarray | None = None,
    about: Mapping[str, str] | None = None,
    judge: Callable[[Callable[[Tensor], Tensor]], None] | None = None,
    batch_check: Sequence[int] = (1, 3),
    tolerance: float | None = None,
) -> ExportReport:
    """Write a backbone as a file for a runtime, after comparing the two where the runtime is here.

    Whatever the format, the file takes float32 (N, 3, 112, 112) in [-1, 1], RGB, and gives
    float32 (N, E), not normalised. An ``.onnx`` file calls them "data" and "embedding", takes any
    N, and is what ``insightface.model_zoo.get_model`` expects, whose own preprocessing then leads
    to the same embeddings; the others but ``.xml`` take one face. The file holds the
    backbone in eval mode, whatever its precision in training. The backbone itself is left as it
    is, and so is what stood at ``path`` if the export fails.

    Args:
        backbone: maps images (B, 3, 112, 112) to embeddings (B, E).
        path: where to; its ending says the format, see ``FORMATS``.
        precision: "fp32", "fp16" or "int8"; not every format has every one. int8 of ``.onnx``
            is of weights and activations, of ``.tflite`` of weights alone.
        opset: of the ONNX operators, 9 to 23, of int8 from 13 on. Where torch has its dynamo
            exporter only, and that cannot write a model at this opset, the file has the next one
            that it can: see the report.
        faces: uint8 (N, 112, 112, 3) RGB, such as the backbone was trained for. A part of them
            is what the file is compared on; int8 ``.onnx`` needs the rest for its ranges. None:
            the file is compared on random pictures, where it runs here.
        about: what the file is to say of itself, by key, where its format has a place for it.
        judge: called with the exported model, as a function of images, before the file is put in
            its place; what it raises stops that.
        batch_check: batch sizes at which file and torch are compared.
        tolerance: the largest |file - torch| / |torch| that an embedding may have. None: by
            the precision, see ``TOLERANCES``.

    Raises:
        ExportError: no such format, precision or opset, faces or a judge for a format that does
            not run here, a converter that fails, a file whose embeddings differ, embeddings that
            are not finite, or a place that cannot be written or where something else is
            (``check_place``).
        MissingPackageError: the converter or the runtime is not installed.
    """
    path = Path(path)
    check_place(path)
    form = format_at(path)
    form.check(precision, opset=opset, with_faces=faces is not None, judged=judge is not None)
    model = prepared(backbone)
    shown = ranges = None
    if faces is not None:
        batch_check, shown, ranges = _split(model, faces, batch_check)
    expected = references(model, batch_check, shown)
    request = Request(
        precision=precision,
        opset=opset,
        tolerance=TOLERANCES[precision] if tolerance is None else tolerance,
        expected=expected,
        calibration=ranges,
        about=about or {},
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        try:
            facts = form.write(model, file, request)
            exported = parity = None
            if form.runs_here:
                # Not as many as there are cores: runtimes that wait for each other spin.
                exported = open_exported(file, threads=torch.get_num_threads())
                parity = compare(exported, expected, request.tolerance)
        except Exception as error:  # the converters raise nearly anything
            reason = " ".join(str(error).replace(f"{folder}{os.sep}", "").split())
            raise ExportError(
                f"{type(backbone).__name__} cannot be exported to {path}: {reason[:400]}"
            ) from error
        if judge is not None and exported is not None:
            judge(exported)
        size = _place(file, path)
    return ExportReport(
        path=str(path),
        size=size,
        precision=precision,
        runtime=None if exported is None else exported.RUNTIME,
        batches=tuple(batch_check),
        compared_on_faces=faces is not None,
        **({} if parity is None else vars(parity)),
        **facts,
    )


def format_at(path: str | os.PathLike) -> Format:
    """The format of ``FORMATS`` that a file's name asks for.

    Raises:
        ExportError: none.
    """
    return format_of(path, FORMATS)


def check_place(path: str | os.PathLike) -> None:
    """Refuse to write a model where something is that nobody asked to replace.

    A former model is replaced.

    Args:
        path: of the file that names the model.

    Raises:
        ExportError: its ending says no format; a folder is there, or for Core ML anything but a
            package; a file of the name of a further one is there, which nobody names, and is a
            verification set or has no model of the format beside it.
    """
    path = Path(path)
    format_at(path)
    ending = ending_of(path)
    if ending is None:
        _check_folder(path)
        return
    if path.exists() and not path.is_file():
        raise ExportError(f"output {path} is there and is no file: choose another name")
    for file in files_of(path)[1:]:
        theirs = ENDINGS[ending].begins(path) and _may_be_a_model_s(file)
        if file.exists() and not theirs:
            raise ExportError(
                f"output {path}: {file} is there, belongs to no model beside it, and would be "
                "replaced: choose another name, or remove it"
            )


def _check_folder(path: Path) -> None:
    """Of a format whose model is a folder: what stands there goes, with all that is in it."""
    try:
        package = path.is_dir() and not path.is_symlink() and _holds(path) == _PACKAGE
    except OSError as error:
        raise ExportError(f"output {path} cannot be read: {error.strerror}") from error
    if os.path.lexists(path) and not package:
        raise ExportError(
            f"output {path} is there, is no folder of {' and '.join(sorted(_PACKAGE))} alone as "
            "coremltools writes it, and would be replaced: choose another name, or remove it"
        )


def _holds(folder: Path) -> set[str]:
    """The names in a folder, but for what macOS leaves in each that somebody looked at."""
    return {name for name in os.listdir(folder) if name != ".DS_Store"}


def _may_be_a_model_s(file: Path) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        return not _VERIFICATION_SET.match(opened.read(3))


def prepared(backbone: nn.Module) -> nn.Module:
    """A copy in eval mode and float32 on the CPU, whatever its precision in training."""
    model = copy.deepcopy(backbone).cpu().float().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, FaceBackbone):
            module.amp_dtype = None
    return model


def _split(
    model: nn.Module, faces: np.ndarray, batch_check: Sequence[int]
) -> tuple[Sequence[int], np.ndarray, np.ndarray]:
    """Batch sizes to compare at, the faces of those batches, and the others.

    A quarter of the faces is compared on, but no more than ``_MOST_COMPARED``; what the batch
    sizes leave of that is one more batch.
    """
    compared = min(len(faces) // 4, _MOST_COMPARED)
    if compared < sum(batch_check):
        raise ExportError(
            f"{len(faces)} faces are too few to calibrate with and compare on: give "
            f"{4 * sum(batch_check)} or more"
        )
    check_faces(model, faces)
    if compared > sum(batch_check):
        batch_check = (*batch_check, compared - sum(batch_check))
    return batch_check, faces[:compared], faces[compared:]


def _place(written: Path, path: Path) -> int:
    """Put what was written in its place, once all of it is on that disk; its bytes."""
    try:
        if written.is_dir():
            _place_folder(written, path)
            return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
        with ExitStack() as writing:
            partials = []
            for source, target in zip(files_of(written), files_of(path), strict=True):
                partials.append(writing.enter_context(atomic_path(target)))
                shutil.copyfile(source, partials[-1])
                sync(partials[-1])
            if len(partials) > 1 and path.exists():
                # The file that names the model goes first and comes last: a kill in between
                # leaves no model, and not two halves of two.
                shutil.copymode(path, partials[0])
                path.unlink()
        return sum(part.stat().st_size for part in files_of(path))
    except OSError as error:
        raise ExportError(f"output {path} cannot be written: {error.strerror}") from error


def _place_folder(written: Path, path: Path) -> None:
    """Of a format whose model is a folder; a former one there goes with the scratch folder."""
    with scratch_folder(path) as scratch:
        copy = shutil.copytree(written, scratch / "new")
        for part in copy.rglob("*"):
            if part.is_file():
                sync(part)
        if path.exists():
            path.rename(scratch / "former")
        copy.rename(path)
