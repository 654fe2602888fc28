"""The grid: which data there are, what students train with, and the config of each cell."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from methods import METHODS, REFERENCES, SETTINGS, TEACHERS_CENTRES

from arcface_cakd.config import TrainConfig, check_settings
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.registry import did_you_mean


class StudyError(ArcfaceCakdError, ValueError):
    """A cell that cannot be run or shown; the message says why and what to do."""


@dataclass(frozen=True)
class Data:
    """Faces, their teacher, and what the students of them train with.

    Attributes:
        folder: below the faces' folder: train.rec, the .bin sets and their *_people.tsv.
        teacher: ``cakd.teacher``; its ``weights`` are below the faces' folder.
        choose: the .bin sets to choose by; a figure is the mean over them.
        report: the .bin sets that are opened only when told, once for each frozen table.
        student: settings of the students' ``TrainConfig``.
        teacher_settings: settings of the teacher's own, where the study trains it.
        teacher_folder: what it is trained on; None: on ``folder``.
        negatives: pairs of two people for each of one person, see ``records.more_negatives``.
        as_listed: sets whose ``.bin`` says which images may make a pair: no pairs are added.
        same_people: sets of the same people, which are not compared as one.
    """

    folder: str
    teacher: Mapping[str, Any]
    choose: tuple[str, ...]
    report: tuple[str, ...]
    student: Mapping[str, Any]
    teacher_settings: Mapping[str, Any] | None = None
    teacher_folder: str | None = None
    negatives: int = 1
    as_listed: tuple[str, ...] = ()
    same_people: tuple[str, ...] = ()

    def negatives_of(self, name: str) -> int:
        """``negatives`` of one of its sets."""
        return 1 if name in self.as_listed else self.negatives


# As in the first try on these faces; a cell takes two CPU minutes and the teacher's.
CPU_STUDENT: dict[str, Any] = {
    "network": "r10_mini",
    "embedding_size": 512,
    "margin_list": (1.0, 0.0, 0.2),
    "margin_scale": 32.0,
    "lr": 0.1,
    "batch_size": 64,
    "num_epoch": 4,
    "num_workers": 0,
    "frequent": 52,
}
# The demo's teacher, by its recipe's settings.
CPU_TEACHER: dict[str, Any] = {
    "network": "swin_mini",
    "embedding_size": 128,
    "margin_list": (1.0, 0.0, 0.2),
    "margin_scale": 32.0,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.05,
    "batch_size": 32,
    "num_epoch": 6,
    "warmup_epoch": 0.5,
    "num_workers": 0,
    "seed": 1,
}
TRAINED = "done"  # a file beside the weights of a teacher whose training has ended
MADE_PROTOCOLS = ("lfw", "cfp_fp", "agedb_30")


def _made(folder: str, choose: tuple[str, ...], report: tuple[str, ...]) -> Data:
    return Data(
        folder=folder,
        teacher={"network": "swin_mini", "weights": f"{folder}/teacher/model.pt"},
        choose=choose,
        report=report,
        student={**CPU_STUDENT, "embedding_size": 128},
        teacher_settings=CPU_TEACHER,
    )


# A teacher that has seen many more people than its students, as those of real faces have.
WIDE = "made_5000"
WIDE_TEACHER: dict[str, Any] = {
    **CPU_TEACHER,
    "batch_size": 256,
    "num_epoch": 12,
    "warmup_epoch": 1.0,
    "bf16": True,
    "num_workers": 12,
    "frequent": 100,
}
# The same where there is no GPU: a third of the passes, in smaller batches.
WIDE_CPU_TEACHER: dict[str, Any] = {**CPU_TEACHER, "batch_size": 64, "num_epoch": 4}


def _made_wide(
    folder: str, choose: tuple[str, ...], report: tuple[str, ...], on_cpu: bool = False
) -> Data:
    name = "teacher_swin_mini_cpu" if on_cpu else "teacher_swin_mini"
    return replace(
        _made(folder, choose, report),
        teacher={"network": "swin_mini", "weights": f"{WIDE}/{name}/model.pt"},
        teacher_settings=WIDE_CPU_TEACHER if on_cpu else WIDE_TEACHER,
        teacher_folder=WIDE,
    )


EDGEFACE = {"network": "edgeface_xs", "weights": "real/edgeface_xs.pt"}


def _real(teacher: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> Data:
    return Data(
        folder="real",
        teacher=teacher,
        choose=("dev",),
        report=("test", "reserve", "cfp_ff", "cfp_fp"),
        student=CPU_STUDENT,
        teacher_settings=settings,
        negatives=10,
        as_listed=("cfp_fp",),  # a frontal face and a profile; any two images would be another task
        same_people=("cfp_ff", "cfp_fp"),
    )


FOLDS = tuple(f"real_fold_{fold}" for fold in range(4))  # of the people of `real` (folds.py)


def _fold(folder: str) -> Data:
    """Trained on three quarters of the people, with nothing to choose by, judged on the fourth."""
    return replace(
        _real(EDGEFACE),
        folder=folder,
        choose=(),
        report=("held_out",),
        as_listed=(),
        same_people=(),
    )


def _from_edgeface(network: str) -> Data:
    """A teacher of another architecture, which learned from EdgeFace what it knows: label-free, by
    its embeddings alone, so that a Transformer and a CNN teach what the same network taught them.
    """
    settings = {
        **CPU_TEACHER,
        "network": network,
        "embedding_size": CPU_STUDENT["embedding_size"],
        "batch_size": 64,
        "num_epoch": 20,
        "warmup_epoch": 1.0,
        "augment": {},
        "cakd": {**METHODS["embedding_64_no_margin"], "teacher": {**EDGEFACE, "cached_views": 4}},
    }
    teacher = {"network": network, "weights": f"real_{network}/teacher/model.pt"}
    return _real(teacher, settings)


# For whoever has a GPU: arcface_torch's own settings of a run on one.
GPU_STUDENT: dict[str, Any] = {
    "embedding_size": 512,
    "margin_list": (1.0, 0.0, 0.4),
    "margin_scale": 64.0,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "batch_size": 256,
    "num_epoch": 20,
    "warmup_epoch": 1.0,
    "bf16": True,
    "num_workers": 8,
    "frequent": 100,
}
GPU_TEACHER: dict[str, Any] = {
    **GPU_STUDENT,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.05,
    "num_epoch": 30,
    "warmup_epoch": 3.0,
    "seed": 1,
}


def _gpu(faces: str, teacher: str, student: str) -> Data:
    own = faces == "own"
    return Data(
        folder=faces,
        teacher={"network": teacher, "weights": f"{faces}/teacher_{teacher}/model.pt"},
        choose=("dev",) if own else MADE_PROTOCOLS,
        report=("test",) if own else (),
        student={**GPU_STUDENT, "network": student},
        teacher_settings={**GPU_TEACHER, "network": teacher},
    )


SIZES: dict[str, dict[str, Data]] = {
    "cpu": {
        "real": _real(EDGEFACE),
        **{folder: _fold(folder) for folder in FOLDS},
        "real_swin": _from_edgeface("swin_mini"),
        "real_cnn": _from_edgeface("r10_narrow"),
        "made": _made("made", MADE_PROTOCOLS, ()),
        "made_confirmation": _made("made_confirmation", (), MADE_PROTOCOLS),
        "made_wide": _made_wide("made", MADE_PROTOCOLS, ()),
        "made_wide_confirmation": _made_wide("made_confirmation", (), MADE_PROTOCOLS),
        "made_wide_cpu": _made_wide("made", MADE_PROTOCOLS, (), on_cpu=True),
        "made_wide_cpu_confirmation": _made_wide(
            "made_confirmation", (), MADE_PROTOCOLS, on_cpu=True
        ),
    },
    # 5,000 made people (made_faces.py), or a set of the user's own in the folder `own`.
    "gpu": {
        f"{faces}_{teacher}_{student}": _gpu(faces, teacher, student)
        for faces in ("made_5000", "own")
        for teacher in ("swin_t", "swin_s")
        for student in ("mbf", "r18")
    },
}


@dataclass(frozen=True, order=True)
class Cell:
    """One run of the grid."""

    data: str
    method: str
    seed: int
    size: str = field(default="cpu", compare=False)

    def __str__(self) -> str:
        return f"{self.data}/{self.method}/{self.seed}"

    @classmethod
    def read(cls, text: str, size: str = "cpu") -> "Cell":
        """Of "<data>/<method>/<seed>".

        Raises:
            StudyError: it is no cell of the grid.
        """
        data, method, seed = [*text.split("/"), "", ""][:3]
        if text.count("/") != 2 or not seed.isdecimal():
            raise StudyError(f"{text!r} is no cell: write data/method/seed, as real/plain/1")
        return cls(data, method, int(seed), size).checked()

    def checked(self) -> "Cell":
        """This cell.

        Raises:
            StudyError: there are no such data, or no such method.
        """
        known = SIZES[self.size]
        if self.data not in known:
            hint = did_you_mean(self.data, known)
            raise StudyError(f"no data {self.data!r} of size {self.size!r}; {hint}")
        if self.method not in METHODS and self.method not in REFERENCES:
            hint = did_you_mean(self.method, [*METHODS, *REFERENCES])
            raise StudyError(f"no method {self.method!r}; {hint}")
        return self

    @property
    def of(self) -> Data:
        """Its data."""
        return SIZES[self.size][self.data]


def cell_config(cell: Cell, faces: Path, output: Path) -> TrainConfig:
    """The config of a cell that trains.

    Args:
        cell: of a method, not of a reference.
        faces: where the data lie.
        output: folder of the run.

    Raises:
        ConfigError: the entry of the method does not fit the package.
    """
    settings: dict[str, Any] = {**cell.of.student, **SETTINGS.get(cell.method, {})}
    if settings.get("init_centers") == TEACHERS_CENTRES:
        settings["init_centers"] = str(class_means_path(cell.of, faces))
    entry = METHODS[cell.method]
    if entry is not None:
        teacher = {**teacher_entry(cell.of, faces), **entry.get("teacher", {})}
        if teacher.get("centers") == TEACHERS_CENTRES:
            teacher["centers"] = str(class_means_path(cell.of, faces))
        teacher["cache"] = _cache(cell.of, teacher, cell.seed, faces)
        settings["cakd"] = {**entry, "teacher": teacher}
    return _config(cell.of, settings, faces, output, seed=cell.seed)


def _cache(data: Data, teacher: Mapping[str, Any], seed: int, faces: Path) -> str:
    """Where its teacher's answers are kept: a cache is of one teacher and stage, and of the views
    that one seed makes.
    """
    parts = [_faces_and_teacher(data)]
    apart = ("stage", "cached_views", "bf16")
    parts += [f"{key}_{teacher[key]}" for key in apart if key in teacher]
    if "cached_views" in teacher:
        parts.append(f"seed_{seed}")
    return str(faces / "work" / "cache" / "_".join(parts))


def class_means_path(data: Data, faces: Path) -> Path:
    """Where the teacher's class means are, in the form in which a run keeps its class centres."""
    return faces / "work" / "class_means" / _faces_and_teacher(data) / "checkpoint_gpu_0.pt"


def _faces_and_teacher(data: Data) -> str:
    """Names what a teacher says of some faces."""
    parts = [data.folder, data.teacher["network"]]
    if data.teacher_folder is not None:  # several teachers have been trained on one
        parts += Path(data.teacher["weights"]).parent.parts
    return "_".join(parts)


def teacher_config(data: Data, faces: Path) -> TrainConfig:
    """The config of the run that makes the teacher.

    Raises:
        StudyError: the study does not train this teacher.
    """
    if data.teacher_settings is None:
        raise StudyError(
            f"the teacher {data.teacher['network']!r} comes with its weights and is not trained: "
            f"{faces / data.teacher['weights']} is made with the data"
        )
    settings = dict(data.teacher_settings)
    if "cakd" in settings:
        entry = settings["cakd"]
        taught = entry["teacher"]
        places = {"weights": str(faces / taught["weights"])}
        places["cache"] = _cache(replace(data, teacher=taught), taught, settings["seed"], faces)
        settings["cakd"] = entry | {"teacher": taught | places}
    output = (faces / data.teacher["weights"]).parent
    taught_on = replace(data, folder=data.teacher_folder or data.folder)
    return _config(taught_on, settings, faces, output)


def teacher_entry(data: Data, faces: Path) -> dict[str, Any]:
    """``cakd.teacher`` of the data."""
    return {**data.teacher, "weights": str(faces / data.teacher["weights"])}


def check_teacher_is_trained(data: Data, faces: Path) -> None:
    """See that the study has trained the teacher to its end, where it trains it.

    A run writes ``model.pt`` after every epoch: that it is there says little.

    Raises:
        StudyError: it has not.
    """
    if data.teacher_settings is None:
        return
    folder = (faces / data.teacher["weights"]).parent
    if not (folder / TRAINED).is_file():
        raise StudyError(f"{folder} has no trained teacher: run.py --data <these> --teacher first")


def _config(
    data: Data, settings: dict[str, Any], faces: Path, output: Path, **more: Any
) -> TrainConfig:
    places = {"rec": str(faces / data.folder), "output": str(output), "val_targets": ()}
    more["force"] = True  # a run that was stopped is begun anew, in a folder of its own
    return TrainConfig(**check_settings(TrainConfig, {**settings, **places, **more}, "study"))
