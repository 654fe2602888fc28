"""One rank of ``bench scaling``: torchrun starts ``-m arcface_cakd.bench.scaling_rank FILE``.

What rank 0 measured goes to the file that ``FILE``'s ``output`` names: ``seconds`` by side and
round, of the wall, and ``cpu_seconds``, those of its processor time; ``sent`` (bytes by round),
``parameters`` of the student and its ``embedding_size``.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from arcface_cakd.bench.faces import train_config
from arcface_cakd.bench.scaling import EXCHANGE, OURS, WRAPPED
from arcface_cakd.bench.step import Steps
from arcface_cakd.distributed import barrier, is_main, process_group, world_size
from arcface_cakd.engine import stepping

_WARM_UP = 2


def main(file: str) -> None:
    """Measure what the settings in a file say, on every rank of this launch."""
    settings = json.loads(Path(file).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    with process_group("gloo") as device:
        found = measure(settings, device)
        if is_main():
            Path(settings["output"]).write_text(json.dumps(found), encoding="utf-8")


def measure(settings: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Both sides by turns; a collective."""
    config = train_config(
        Path(settings["faces"]),
        settings["network"],
        settings["batch_size"],
        num_classes=settings["num_classes"],
    )
    ours, theirs = Steps(config, device), Steps(config, device)
    sides: dict[str, Callable[[], None]] = {OURS: ours.without}
    if world_size() > 1:
        wrapped = Wrapped(theirs)
        sides[WRAPPED] = wrapped.step
    clocks = {"seconds": time.perf_counter, "cpu_seconds": time.process_time}
    took: dict[str, dict[str, list[float]]] = {
        clock: {name: [] for name in (*sides, EXCHANGE)} for clock in clocks
    }
    sent: list[int] = []
    average = stepping.average_gradients

    def timed(name: str, function: Callable[..., None], *args: Any) -> None:
        begin = {clock: read() for clock, read in clocks.items()}
        function(*args)
        for clock, read in clocks.items():
            took[clock][name].append(read() - begin[clock])

    def exchange(parameters: Any) -> None:
        timed(EXCHANGE, average, parameters)

    with mock.patch.object(stepping, "average_gradients", exchange):
        for number in range(_WARM_UP + settings["rounds"]):
            for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
                barrier()
                before = bytes_sent()
                timed(name, sides[name])
                if name == OURS:
                    sent.append(bytes_sent() - before)
    counted = {
        clock: {name: rounds[_WARM_UP:] for name, rounds in sides_.items()}
        for clock, sides_ in took.items()
    }
    return counted | {
        "sent": sent[_WARM_UP:],
        "parameters": sum(p.numel() for p in ours.run.student.parameters()),
        "embedding_size": config.embedding_size,
    }


class Wrapped:
    """Steps of a plain student in DistributedDataParallel, which exchanges while it goes back.

    Args:
        steps: of the student; its run is taken over.
    """

    def __init__(self, steps: Steps):
        self._steps = steps
        self.run = steps.run
        self._model = DistributedDataParallel(steps.run.model, broadcast_buffers=False)
        assert steps.run.partial_fc is not None
        self._partial_fc: nn.Module = steps.run.partial_fc

    def step(self) -> None:
        """Forward, backward with the exchange in it, clipping, the optimiser."""
        optimizer = self.run.optimizer
        self._partial_fc(self._model(self._steps.images), self._steps.labels).backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()


def bytes_sent() -> int:
    """Bytes that this process has written so far, to sockets and files; 0 where nobody tells."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


if __name__ == "__main__":
    main(sys.argv[1])
