"""Tables of images and labels: parquet files, and folders of Arrow files."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from arcface_cakd.data.errors import DataError
from arcface_cakd.extras import extra
from arcface_cakd.preparation.importing.source import Sample, as_label

logger = logging.getLogger("arcface_cakd")

# What a column may be called; the first that are there count, before what may mean other things.
_IMAGE_NAMES = (("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes"),)
_LABEL_NAMES = (
    ("label", "labels", "cls", "identity"),
    ("person", "id", "class", "target", "name"),
)
_ROWS = 256  # that are held at a time


class Table:
    """Rows of an image and its label, in parquet or Arrow files.

    An image is bytes, or a struct of ``bytes`` and ``path`` as Hugging Face's datasets stores it.
    One batch of rows is held at a time.

    Args:
        kind: "parquet" or "arrow".
        files: in order.
        image: the column of the images; None: told by its name, which the log says.
        label: the column of the labels; None: told by its name.

    Raises:
        DataError: pyarrow is missing, a file is none of its kind, the columns are not there or
            several might be the one, or files name their class labels differently.
    """

    def __init__(
        self, kind: str, files: list[Path], image: str | None = None, label: str | None = None
    ):
        self.kind, self.files = kind, files
        schema = schema_of(kind, files[0])
        self._image = _column(files[0], schema, image, _IMAGE_NAMES, "image")
        self._label = _column(files[0], schema, label, _LABEL_NAMES, "label")
        self.label_names: Sequence[str] | None = _class_names(schema, self._label)
        self.settings = {"image": self._image, "label": self._label}
        self._refuse_other_names()
        logger.info("%s: images are of column %r, labels of %r", files[0], self._image, self._label)

    def count(self) -> int | None:
        import pyarrow

        if self.kind != "parquet":
            return None
        try:
            return sum(_parquet(path).metadata.num_rows for path in self.files)
        except (pyarrow.ArrowException, OSError):  # which reading will name
            return None

    def read(self, file: int, skip: int) -> Iterator[Sample]:
        import pyarrow

        path, row = self.files[file], 0
        try:
            row, found = batches(self.kind, path, [self._image, self._label], skip)
            for batch in found:
                images, labels = batch.column(self._image), batch.column(self._label)
                for place in range(min(max(skip - row, 0), len(batch)), len(batch)):
                    yield _sample(path, row + place, images[place].as_py(), labels[place].as_py())
                row += len(batch)
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            if row >= skip:  # else it was said
                reason = " ".join(str(error).split())
                problem = f"from row {row} on it cannot be read, cut or damaged: {reason}"
                yield Sample(str(path), problem=problem)

    def _refuse_other_names(self) -> None:
        """One number would be two people."""
        for path in self.files[1:]:
            try:
                schema = schema_of(self.kind, path)
            except DataError:  # damaged, which reading will say
                continue
            names = _class_names(schema, self._label)
            if names is not None and names != self.label_names:
                raise DataError(
                    f"{path}: names its class labels otherwise than {self.files[0]}: import each "
                    "alone, and 'arcface-cakd data merge' joins them by name"
                )


def schema_of(kind: str, path: Path) -> Any:
    """The columns of a file.

    Raises:
        MissingPackageError: pyarrow is not installed.
        DataError: it is no such file.
    """
    pyarrow = extra("pyarrow", "parquet", f"reading {path.name}")
    try:
        return _parquet(path).schema_arrow if kind == "parquet" else _arrow(path).schema
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: no {kind} file, or damaged: {reason}") from error


def batches(
    kind: str, path: Path, columns: Sequence[str], skip: int = 0
) -> tuple[int, Iterator[Any]]:
    """Batches of rows, and the number of their first row, which is ``skip`` or lower."""
    if kind == "parquet":
        file = _parquet(path)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        first = start = 0
        while first < len(sizes) and start + sizes[first] <= skip:
            start += sizes[first]
            first += 1
        return start, (
            batch
            for group in range(first, len(sizes))
            for batch in file.iter_batches(_ROWS, row_groups=[group], columns=list(columns))
        )
    reader = _arrow(path)
    if hasattr(reader, "num_record_batches"):
        return 0, map(reader.get_batch, range(reader.num_record_batches))
    return 0, iter(reader)


def arrow_files(folder: Path) -> list[Path]:
    """The files of a folder that datasets' ``save_to_disk`` wrote, in the order it states.

    Raises:
        DataError: it holds several splits, a file is missing, or rows were chosen from it.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_text()).get("splits", [])
        raise DataError(
            f"{folder}: holds the splits {', '.join(splits)}: give the folder of one, such as "
            f"{folder / (splits[0] if splits else 'train')}"
        )
    if not (folder / "state.json").is_file():
        return []
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        files = [folder / entry["filename"] for entry in state["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'state.json'}: names no data files: damaged") from error
    if state.get("_indices_files"):
        raise DataError(
            f"{folder}: rows are chosen by an index: save it again, flattened (flatten_indices())"
        )
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise DataError(f"{missing[0]}: no such file, which state.json names: bring it")
    return files


def _parquet(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path)


def _arrow(path: Path) -> Any:
    import pyarrow

    with open(path, "rb") as file:
        is_file = file.read(6) == b"ARROW1"
    mapped = pyarrow.memory_map(str(path))
    return (pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream)(mapped)


def _column(
    path: Path, schema: Any, asked: str | None, known: Sequence[Sequence[str]], option: str
) -> str:
    there = ", ".join(schema.names)
    if asked is not None:
        if asked not in schema.names:
            raise DataError(
                f"{path}: has no column {asked!r}, but {there}: give another --{option}"
            )
        return asked
    there_of = ([name for name in names if name in schema.names] for names in known)
    found = next(filter(None, there_of), [])
    if not found:
        raise DataError(f"{path}: which of its columns, {there}, is it? Say so with --{option}")
    if len(found) > 1:
        raise DataError(
            f"{path}: each of its columns {', '.join(found)} may be it: say which with --{option}"
        )
    return found[0]


def _class_names(schema: Any, label: str) -> list[str] | None:
    """The names that datasets keeps of a column of class labels."""
    described = (schema.metadata or {}).get(b"huggingface")
    try:
        feature = json.loads(described)["info"]["features"][label] if described else {}
        names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if isinstance(names, dict):
        names = [names[number] for number in sorted(names, key=int)]
    return names


def _sample(path: Path, row: int, image: Any, label: Any) -> Sample:
    place = f"{path}, row {row}"
    try:
        return Sample(place, image_bytes(image), as_label(label))
    except ValueError as error:
        return Sample(place, problem=str(error))


def image_bytes(image: Any) -> bytes:
    """The encoded image of a cell.

    Raises:
        ValueError: there is none in it.
    """
    if isinstance(image, dict):
        if not image.get("bytes") and image.get("path"):
            raise ValueError(f"its image is not in the table, but in {image['path']}")
        image = image.get("bytes")
    if image is None:
        raise ValueError("it has no image")
    if not isinstance(image, bytes):
        raise ValueError(f"its image is a {type(image).__name__}, not encoded bytes")
    return image
