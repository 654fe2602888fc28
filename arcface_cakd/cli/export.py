"""``arcface-cakd export``: a model as a file for a runtime, or in a folder for what loads it."""

import argparse
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcface_cakd import __version__
from arcface_cakd.cli.figures import STDOUT, add_json, write_json
from arcface_cakd.cli.numbers import draws, finite, positive
from arcface_cakd.cli.saved_model import SavedModel, load_model
from arcface_cakd.cli.without_effect import refuse

if TYPE_CHECKING:
    from arcface_cakd.export import ExportReport
    from arcface_cakd.export.bundle import Bundle
    from arcface_cakd.export.formats import Format
    from arcface_cakd.export.judging import Judge

_DRAWS, _OPSET = 1000, 17
_ONNXRUNTIME_WEB = "node_modules/onnxruntime-web/dist"
HELP = "Write a model for ONNX, LiteRT, ncnn, OpenVINO or Core ML, compared with torch."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "examples:\n"
        "  arcface-cakd export model.pt --output mbf.onnx\n"
        "  arcface-cakd export model.pt --output mbf.ncnn.param\n"
        "  arcface-cakd export model.pt --insightface-pack pack --detector det_10g.onnx\n"
        "  npm install onnxruntime-web && arcface-cakd export model.pt --web page\n"
        "  arcface-cakd export model.pt --output mbf.int8.onnx --precision int8 \\\n"
        "      --calibrate faces/train.rec --data lfw.bin --max-loss 0.5"
    )
    parser.add_argument("model", metavar="MODEL.pt", help="weights, as training writes them")
    parser.add_argument(
        "--network", metavar="NAME", help="network of weights that have no model.json beside them"
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--output",
        metavar="FILE",
        help="where to; .onnx, .tflite, .ncnn.param, .xml or .mlpackage says the format",
    )
    target.add_argument(
        "--insightface-pack",
        metavar="DIR",
        help="a new folder for insightface's FaceAnalysis: the model as .onnx, and --detector",
    )
    target.add_argument(
        "--web",
        metavar="DIR",
        help="a new folder with a page that compares two faces in the browser, by onnxruntime-web",
    )
    parser.add_argument(
        "--detector",
        metavar="FILE.onnx",
        help="of --insightface-pack: one that insightface loads, as det_10g.onnx of buffalo_l",
    )
    parser.add_argument(
        "--onnxruntime-web",
        metavar="DIR",
        help=f"of --web: where npm put it; default: {_ONNXRUNTIME_WEB}",
    )
    parser.add_argument(
        "--embedding-size", type=positive, metavar="E", help="their width; default: as saved"
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        metavar="P",
        help="fp32 (default), fp16 or int8; int8 of .onnx is of weights and activations, of "
        ".tflite of weights",
    )
    parser.add_argument(
        "--opset", type=positive, metavar="N", help=f"of .onnx, 9 to 23; default: {_OPSET}"
    )
    parser.add_argument(
        "--calibrate",
        metavar="FACES",
        help="a .bin set, a train.rec or a folder of faces, to compare on, and for int8 of .onnx "
        "to find ranges and choose layers by; never what you report on",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="judge on these .bin sets",
    )
    parser.add_argument(
        "--max-loss",
        type=finite,
        metavar="POINTS",
        help="write nothing where the file loses more than that on one of --data",
    )
    parser.add_argument(
        "--draws",
        type=draws,
        metavar="N",
        help=f"of people or pairs, for the intervals of --data; 0: none; default: {_DRAWS}",
    )
    parser.add_argument(
        "--about",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=TEXT",
        help="what the file and its model card are to say: license, training_data, data_license, "
        "teacher, teacher_license, or any key of yours",
    )
    add_json(parser, "write the comparison to a file")


def run(args: argparse.Namespace) -> None:
    from arcface_cakd.export import ExportError, check_place, export_model, format_at
    from arcface_cakd.export.calibration import calibration_faces
    from arcface_cakd.export.judging import Judge
    from arcface_cakd.export.model_card import check_card, run_facts, write_card

    if args.max_loss is not None and not args.data:
        raise ExportError("--max-loss is judged on --data: give a .bin set")
    if not args.data:
        refuse(args, ("draws",), "is for the intervals of --data: say --data, or drop it")
    if not args.web:
        refuse(args, ("onnxruntime_web",), "is for --web: say --web, or drop it")
    if args.output and not args.output.endswith(".onnx"):
        refuse(args, ("opset",), f"is for .onnx files, and {args.output} is none: drop it")
    bundle = _bundle(args)
    if bundle is None:
        check_place(args.output)
        check_card(args.output)
    _check_json_place(args.json, bundle, args.output)
    form = format_at(args.output if bundle is None else bundle.MODEL)
    opset = args.opset or _OPSET
    form.check(args.precision, opset=opset, with_faces=bool(args.calibrate), judged=bool(args.data))
    own_words = _said(args.about)
    model = load_model(args)
    about, facts = _about(args.precision, form, model) | own_words, run_facts(args.model)
    faces = calibration_faces(args.calibrate) if args.calibrate else None
    judge = None
    if args.data:
        paths = [Path(path) for path in args.data]
        judge = Judge(
            model.backbone, paths, args.max_loss, _DRAWS if args.draws is None else args.draws
        )
        if args.calibrate and any(_same(args.calibrate, path) for path in judge.sets):
            raise ExportError(
                f"{args.calibrate} is in --calibrate and in --data: what a file was chosen by "
                "says nothing of its accuracy"
            )

    def write(path: str | Path) -> "tuple[ExportReport, Path]":
        report = export_model(
            model.backbone,
            path,
            args.precision,
            opset=opset,
            faces=faces,
            about=about,
            judge=judge,
        )
        return report, write_card(report, model.backbone, about, facts, judge)

    if bundle is None:
        report, card = write(args.output)
        print(_text(report, judge))
    else:
        with bundle.filled() as folder:
            report, card = write(folder / bundle.MODEL)
            said = bundle.complete(folder, about)
        report = replace(report, path=str(bundle.folder / bundle.MODEL))
        card = bundle.folder / card.name
        print(_text(report, judge))
        print(said)
    print(f"model card: {card}; to publish both: {_upload(report, card)}")
    write_json(args.json, asdict(report) | _accuracy(judge))


def _bundle(args: argparse.Namespace) -> "Bundle | None":
    """The folder that is asked for in place of ``--output``."""
    from arcface_cakd.export import ExportError, InsightFacePack, WebPage

    if args.insightface_pack:
        if not args.detector:
            raise ExportError(
                "--insightface-pack needs a --detector: an .onnx file that insightface loads, as "
                "~/.insightface/models/buffalo_l/det_10g.onnx"
            )
        return InsightFacePack(args.insightface_pack, args.detector)
    if args.detector:
        raise ExportError("--detector is copied into --insightface-pack: give that too")
    return WebPage(args.web, args.onnxruntime_web or _ONNXRUNTIME_WEB) if args.web else None


def _check_json_place(figures: str | None, bundle: "Bundle | None", output: str) -> None:
    """Refuse to write figures where the export itself writes."""
    from arcface_cakd.export import ExportError
    from arcface_cakd.export.model_card import card_path
    from arcface_cakd.runtimes import ending_of, files_of

    if not figures or figures == STDOUT:
        return
    if bundle is not None:
        written = [bundle.folder]
    else:
        parts = files_of(output) if ending_of(output) else [Path(output)]  # Core ML's: a folder
        written = [*parts, card_path(output)]
    place = Path(figures).resolve()
    if any(file.resolve() in (place, *place.parents) for file in written):
        raise ExportError(
            f"--json {figures}: the export itself is written there: name another file"
        )


def _accuracy(judge: "Judge | None") -> dict[str, Any]:
    if judge is None:
        return {}
    return {
        "accuracy": {
            name: {
                "original": judge.original[name].to_dict(),
                "exported": found.to_dict(),
                "points_lost": judge.losses()[name],
            }
            for name, found in judge.exported.items()
        }
    }


def _upload(report: "ExportReport", card: Path) -> str:
    """The user's own command, which uploads to the Hugging Face Hub."""
    from arcface_cakd.runtimes import files_of

    if report.runtime is None:  # a folder, which keeps its name there
        place = Path(report.path)
        commands = [shlex.join(["hf", "upload", "OWNER/NAME", str(place), place.name])]
    else:
        commands = [f"hf upload OWNER/NAME {shlex.quote(str(f))}" for f in files_of(report.path)]
    commands.append(f"hf upload OWNER/NAME {shlex.quote(str(card))} README.md")
    return " && ".join(commands)


def _about(precision: str, form: "Format", model: SavedModel) -> dict[str, str]:
    """What the file says of itself, by the keys ``OWN``."""
    from arcface_cakd.export.model_card import OWN

    given, made = form.shapes
    facts = (
        f"arcface_cakd {__version__}",
        model.network,
        str(model.backbone.embedding_size),
        form.in_words(precision),
        f"float32 {given}, RGB, aligned by the ArcFace template",
        "(pixel / 255 - 0.5) / 0.5, into [-1, 1]",
        f"float32 {made}, not normalised: compare by cosine",
    )
    return dict(zip(OWN, facts, strict=True))


def _said(texts: list[str]) -> dict[str, str]:
    """What the user says of the file, by key."""
    from arcface_cakd.export import ExportError
    from arcface_cakd.export.model_card import OWN

    said: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key.strip() or not value.strip():
            raise ExportError(f"--about {text}: write KEY=TEXT, as license=MIT")
        if key in OWN:
            raise ExportError(f"--about {text}: {key} is told by the model itself: drop it")
        if key in said:
            raise ExportError(f"--about {text}: {key} is given twice: drop one of the two")
        said[key] = " ".join(value.split())
    return said


def _text(report: "ExportReport", judge: "Judge | None") -> str:
    head = [f"{report.path}: {report.size / 1e6:.1f} MB", report.precision]
    if report.opset is not None:
        head += [f"opset {report.opset}", "any batch size"]
    if report.batch_norms_left:
        head.append(f"BatchNorm folded but for {report.batch_norms_left} before padding")
    if report.float_layers:
        head.append(f"in float: {', '.join(report.float_layers)}")
    if report.runtime is None:
        compared = "not run, and not compared with torch: what runs it is on Apple's systems alone"
    else:
        compared = (
            f"against torch, in {report.runtime}, on {sum(report.batches)} pictures: cosine at "
            f"least {report.cosine:.9f}, elements within {report.max_abs_diff:.1e}"
        )
    lines = [", ".join(head), compared]
    if judge is not None:
        for name, loss in judge.losses().items():
            lines.append(
                f"{name}: {100 * judge.exported[name].accuracy:.2f} %, "
                f"{100 * judge.original[name].accuracy:.2f} % by torch: {loss:+.2f} points lost"
            )
    return "\n".join(lines)


def _same(one: str, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()
