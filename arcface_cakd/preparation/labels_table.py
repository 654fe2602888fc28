"""``labels.tsv``: whose each label of a record set is."""

from collections.abc import Sequence
from pathlib import Path

from arcface_cakd.files import write_text

LABELS_FILE = "labels.tsv"


def write_labels(out: str | Path, names: Sequence[str], heading: str) -> None:
    """Write ``labels.tsv``: what stood for each label before.

    Args:
        out: folder of the data set.
        names: of label 0, 1 and so on.
        heading: what they are.
    """
    # Names of files may hold what no text has.
    names = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    names = [name.replace("\t", "\\t").replace("\n", "\\n") for name in names]
    rows = "".join(f"{label}\t{name}\n" for label, name in enumerate(names))
    write_text(Path(out) / LABELS_FILE, f"label\t{heading}\n{rows}")
