"""The model card beside an exported file: what it is, where it is from, what it is worth."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from arcface_cakd import __version__
from arcface_cakd.backbones import read_description
from arcface_cakd.backbones.cost import multiply_adds, parameters
from arcface_cakd.engine.journal import read_history
from arcface_cakd.evaluation import VerificationResult
from arcface_cakd.export.errors import ExportError
from arcface_cakd.export.exporting import ExportReport, format_at
from arcface_cakd.export.judging import Judge
from arcface_cakd.files import write_text
from arcface_cakd.runtimes import files_of

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

UNSAID = "not said: ask whoever trained it before you use it"
_TEMPLATE = Path(__file__).with_name("model_card.md.j2")
# Its last line, by which a card that somebody has edited since is known; no page shows it.
_SIGNATURE = "<!-- SHA-256 of all above: {} -->\n"
_SIGNED = re.compile(r"(?s)(.*)<!-- SHA-256 of all above: ([0-9a-f]{64}) -->\n")
OWN = ("made_by", "network", "embedding_size", "precision", "input", "normalisation", "output")
"""Keys of what a file says of itself by which the model is told."""

_ASKED = ("license", "training_data", "data_license", "teacher", "teacher_license")
_OF_A_STEP = ("seconds", "images_per_second")  # in a line of metrics.jsonl
_MOST = 1e15  # of either; a line with more, or with NaN, is left out
_LIBRARIES = {"onnxruntime": "onnx", "LiteRT": "tflite"}


@dataclass(frozen=True)
class RunFacts:
    """What the folder of a run says of it, as far as it is there.

    Attributes:
        data: what it learned from.
        terms: names of the loss's terms.
        seconds: of training.
        images: that were seen, with repetitions.
        validation: accuracies of the last validation, by set.
    """

    data: str | None = None
    terms: tuple[str, ...] = ()
    seconds: float | None = None
    images: int | None = None
    validation: Mapping[str, float] = field(default_factory=dict)


def run_facts(weights: str | os.PathLike) -> RunFacts:
    """Of the run that wrote weights: its ``model.json`` and ``metrics.jsonl`` beside them.

    Of weights that no ``model.json`` is of, nothing: a log in their folder may be another's.

    Raises:
        WeightsError: ``model.json`` is damaged.
    """
    said = read_description(weights)
    if said is None:
        return RunFacts()
    history = read_history(Path(weights).parent)
    steps = [line for line in history if all(0 <= line.get(k, -1) < _MOST for k in _OF_A_STEP)]
    terms: tuple[str, ...] = ()
    if steps:
        margin = ("margin",) if "margin" in steps[-1] else ()
        terms = (*margin, *steps[-1].get("terms", ()))
    validations = [line["validation"] for line in history if "validation" in line]
    of = said.training_set
    counted = f"{of.images:,} images" if of.images else "an unknown number of images"
    people = f" of {of.classes:,} people" if of.classes else ", without labels"
    return RunFacts(
        data=f"{of.name}: {counted}{people}",
        terms=terms,
        seconds=sum(line["seconds"] for line in steps) if steps else None,
        images=round(sum(line["seconds"] * line["images_per_second"] for line in steps)) or None,
        validation={k: v for k, v in validations[-1].items() if 0 <= v <= 1} if validations else {},
    )


def card_path(path: str | os.PathLike) -> Path:
    """Where the card of an exported file is: ``mbf.onnx.md`` for ``mbf.onnx``."""
    return Path(f"{os.fspath(path)}.md")


def check_card(path: str | os.PathLike) -> None:
    """Refuse to write an exported file's card over one that has been edited, or is none.

    Args:
        path: of the exported file.

    Raises:
        ExportError: such a file is there.
    """
    card = card_path(path)
    if not os.path.lexists(card):
        return
    try:
        signed = _SIGNED.fullmatch(card.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        signed = None
    if signed is None or signed[2] != _digest(signed[1]):
        raise ExportError(
            f"output {path}: its model card would replace {card}, which has been edited or is none "
            "of ours: move that away, or choose another name"
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_card(
    report: ExportReport,
    backbone: nn.Module,
    about: Mapping[str, str],
    run: RunFacts,
    judge: Judge | None = None,
) -> Path:
    """Write the card of an exported file beside it, whatever is there (``check_card``); its path.

    Args:
        report: of the file.
        backbone: that was exported.
        about: what the file says of itself. Of what a card has, ``license``, ``training_data``,
            ``data_license``, ``teacher`` and ``teacher_license`` have their places; keys that a
            user made up are listed.
        run: what its run says.
        judge: with the figures of the file, if any.
    """
    path = card_path(report.path)
    text = str(model_card(report, backbone, about, run, judge)).rstrip("\n") + "\n\n"
    write_text(path, text + _SIGNATURE.format(_digest(text)))
    return path


def model_card(
    report: ExportReport,
    backbone: nn.Module,
    about: Mapping[str, str],
    run: RunFacts,
    judge: Judge | None = None,
) -> "ModelCard":
    """The card of an exported file, see ``write_card``."""
    from huggingface_hub import ModelCard, ModelCardData

    exported = {} if judge is None else judge.exported
    license_ = about.get("license")
    plain = run.terms == ("margin",) and "teacher" not in about
    distilled = [] if plain else ["knowledge-distillation"]
    data = ModelCardData(
        license="other" if license_ is None else license_.lower(),
        library_name=_library(report),
        pipeline_tag="image-feature-extraction",
        tags=["face-recognition", "arcface", *distilled, about["network"]],
        model_name=Path(report.path).name,
        metrics=["accuracy"] if exported else None,
    )
    data_said = about.get("training_data")
    teacher = "none: the run had no loss but its margin softmax" if plain else UNSAID
    return ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        title=Path(report.path).name,
        version=__version__,
        **{key: about[key] for key in ("network", "embedding_size")},
        **{key: about[key] for key in ("input", "normalisation", "output")},
        files=", ".join(f"`{name}`" for name in _names(report)),
        megabytes=f"{report.size / 1e6:.1f}",
        precision=format_at(report.path).in_words(report.precision),
        float_layers=", ".join(report.float_layers),
        cosine=None if report.cosine is None else f"{report.cosine:.6f}",
        runtime=report.runtime,
        compared=sum(report.batches),
        pictures="faces" if report.compared_on_faces else "random pictures",
        further=[(k, " ".join(v.split())) for k, v in about.items() if k not in OWN + _ASKED],
        data="\n".join(f"- {text}" for text in (data_said, run.data) if text) or UNSAID,
        teacher=about.get("teacher", teacher),
        terms=", ".join(run.terms) or UNSAID,
        figures=[_row(name, found, judge) for name, found in exported.items()],
        validation=", ".join(f"{k} {100 * v:.2f} %" for k, v in run.validation.items()),
        parameters=f"{parameters(backbone):,}",
        macs=f"{multiply_adds(backbone) / 1e6:,.0f} million",
        training=_training(run),
        license=license_ or UNSAID,
        data_license=about.get("data_license", UNSAID),
        teacher_license=about.get("teacher_license", "no teacher" if plain else UNSAID),
    )


def _library(report: ExportReport) -> str:
    """Its name on the Hugging Face Hub."""
    if report.runtime is None:
        return "coreml"
    return _LIBRARIES.get(report.runtime, report.runtime.lower())


def _names(report: ExportReport) -> list[str]:
    if report.runtime is None:  # a folder
        return [Path(report.path).name]
    return [file.name for file in files_of(report.path)]


def _row(name: str, found: VerificationResult, judge: Any) -> list[str]:
    interval = "-"
    if found.accuracy_interval is not None:
        ends = found.accuracy_interval
        interval = f"{ends.drawn}: {100 * ends.low:.2f} to {100 * ends.high:.2f}"
    return [
        name,
        f"{100 * found.accuracy:.2f} %",
        f"{100 * judge.original[name].accuracy:.2f} %",
        f"{found.auc:.4f}",
        f"{100 * found.eer:.2f} %",
        str(found.pairs),
        interval,
    ]


def _training(run: RunFacts) -> str:
    if run.seconds is None:
        return UNSAID
    hours = f"{run.seconds / 3600:.2f} hours"
    return hours if run.images is None else f"{hours} over {run.images:,} images, with repetitions"
