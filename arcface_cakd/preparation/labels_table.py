"""``labels.tsv``: whose each label of a record set is."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.text_lines import read_lines
from arcface_cakd.preparation.tables import write_table

LABELS_FILE = "labels.tsv"
FORMER_LABEL = "former label"


@dataclass(frozen=True)
class LabelNames:
    """What stood for each label before.

    Attributes:
        heading: what the names are: "folder", "name", or ``FORMER_LABEL``, which tells people apart
            within one set only.
        names: by label, as they stand in the file.
    """

    heading: str
    names: dict[int, str]

    def of(self, label: int) -> str:
        """The name of a label, the label itself where it has none."""
        return self.names.get(label, str(label))

    def apart(self, labels: Iterable[int]) -> dict[int, str]:
        """A name for each of the labels that no other has: where two share theirs, with the label.

        Args:
            labels: each once.
        """
        found = {label: self.of(label) for label in labels}
        shared = set(self.shared(found))
        return {
            label: f"{name} (label {label})" if name in shared else name
            for label, name in found.items()
        }

    def shared(self, labels: Iterable[int]) -> list[str]:
        """The names that several of the labels have, in the order of those."""
        return [name for name, times in Counter(map(self.of, labels)).items() if times > 1]


def write_labels(out: str | Path, names: Sequence[str] | Mapping[int, str], heading: str) -> None:
    """Write ``labels.tsv``.

    Args:
        out: folder of the data set.
        names: of label 0, 1 and so on; or by label.
        heading: what they are.
    """
    pairs = sorted(names.items()) if isinstance(names, Mapping) else enumerate(names)
    rows = ((str(label), name) for label, name in pairs)
    write_table(Path(out) / LABELS_FILE, ("label", heading), rows)


def read_labels(folder: str | Path) -> LabelNames | None:
    """The names in ``labels.tsv``, None where there is no such file.

    Raises:
        DataError: it is no table of labels and names, or has a label twice.
    """
    path = Path(folder) / LABELS_FILE
    if not path.is_file():
        return None
    heading, *rows = read_lines(path) or [""]
    kind = heading.partition("\t")[2]
    names: dict[int, str] = {}
    for number, row in enumerate(rows, start=2):
        label, tab, name = row.partition("\t")
        if not (kind and tab and label.isdecimal()) or int(label) in names:
            raise DataError(
                f"{path}, line {number}: must be a label, a tab and a name, each label once, below "
                f"a line 'label<tab>name'; is {row[:40]!r}: mend or remove it"
            )
        if name.strip():  # a blank one is none
            names[int(label)] = name
    return LabelNames(kind, names)
