"""What torchrun is told of a process that fails, for the report with which it ends."""

import contextlib
import json
import os
import time

_FILE = "TORCHELASTIC_ERROR_FILE"  # which torchrun sets for each process


def tell_launcher(message: str) -> None:
    """Let the report end with what went wrong, where torchrun started this process.

    It stands under a page of torchrun's own, which shows nothing else of a process that exits.
    The format is that of ``torch.distributed.elastic.multiprocessing.errors``.

    Args:
        message: one line.
    """
    path = os.environ.get(_FILE)
    if not path:
        return
    about = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
    with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as file:
        json.dump({"message": about}, file)
