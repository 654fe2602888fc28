"""A step on several ranks of this machine: what they exchange, and what that costs."""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from arcface_cakd.bench.errors import BenchError
from arcface_cakd.bench.faces import make_faces
from arcface_cakd.bench.report import Report
from arcface_cakd.bench.timing import Ratio, Times

# By name: nodes, each an agent of torchrun, and ranks on each.
LAYOUTS = {"1 rank": (1, 1), "2 ranks": (1, 2), "3 ranks": (1, 3), "2 nodes": (2, 1)}
OURS, WRAPPED = "step", "step with DistributedDataParallel"
EXCHANGE = "exchange of gradients"
_RAISED = re.compile(r"(\[rank\d+\]: *)?[\w.]*Error: ")  # the last line of a traceback


def measure_scaling(
    report: Report,
    network: str,
    *,
    batch_size: int = 4,
    num_classes: int = 1000,
    rounds: int = 5,
    layouts: dict[str, tuple[int, int]] = LAYOUTS,
) -> None:
    """Steps of a plain student on 1, 2 and 3 ranks and on 2 nodes, all on loopback with gloo.

    Times are those of the wall, for ranks wait for one another, and beside them ratios of rank
    0's processor time, which other jobs change less. Beside the built-in loop's step, which
    exchanges gradients after the backward pass, stands one of the same student in
    DistributedDataParallel, which exchanges them during it; from the same weights both end with
    the same. Where ranks have no cores of their own, what one gains by it another loses.

    Args:
        report: where the figures go. Bytes are those that rank 0 handed to its sockets in a
            step; the least are ``least_bytes``.
        network: name of a backbone.
        batch_size: images of a rank's step.
        num_classes: classes of all ranks together.
        rounds: that are counted.
        layouts: nodes and ranks on each, by name.

    Raises:
        BenchError: a rank failed.
    """
    ranks = max(nodes * local for nodes, local in layouts.values())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = {
            "faces": str(make_faces(folder, ranks * batch_size)),
            "network": network,
            "batch_size": batch_size,
            "num_classes": num_classes,
            "rounds": rounds,
        }
        found = {name: launch(settings, *layout, folder) for name, layout in layouts.items()}
    for name, (nodes, local) in layouts.items():
        one, world = found[name], nodes * local
        times = Times(one["seconds"])
        report.add_times(times, prefix=f"{name}: ")
        if world == 1:
            continue
        least = least_bytes(one["parameters"], batch_size, one["embedding_size"], world)
        sent = Ratio.of([bytes_ / least for bytes_ in one["sent"]])
        report.ratios[f"{name}: bytes sent / least possible"] = sent
        of_cpu = Times(one["cpu_seconds"])
        report.add_times(of_cpu, prefix=f"{name}, CPU time: ")
        for side in (EXCHANGE, WRAPPED):
            report.ratios[f"{name}: {side} / {OURS}"] = times.ratio(side, OURS)
            report.ratios[f"{name}: {side} / {OURS}, CPU time"] = of_cpu.ratio(side, OURS)
        report.amounts[f"{name}: MB sent by a rank in a step"] = Ratio.of(one["sent"]).median / 1e6
        report.amounts[f"{name}: {EXCHANGE}, MB/s"] = (
            ring_bytes(one["parameters"] * 4, world) / times.median(EXCHANGE) / 1e6
        )


def ring_bytes(size: int, world_size: int) -> float:
    """What a rank has to send at the least to sum ``size`` bytes over the ranks: Patarasuk and
    Yuan, "Bandwidth optimal all-reduce algorithms", JPDC 2009."""
    return 2 * (world_size - 1) / world_size * size


def least_bytes(parameters: int, batch_size: int, embedding_size: int, world_size: int) -> float:
    """What a rank has to send at the least in a plain step, all in float32.

    The gradients' sum; its embeddings to each other rank, whose classes they meet, and from there
    their gradients, of which each rank sends those of the others' images; and three numbers of
    each image for the softmax over all shards, to each other rank.

    Args:
        parameters: of the student, replicated.
        batch_size: images of a rank.
        embedding_size: E.
        world_size: ranks.
    """
    others = world_size - 1
    embeddings = batch_size * embedding_size * 4 * others
    softmax = 3 * batch_size * world_size * 4 * others
    return ring_bytes(parameters * 4, world_size) + 2 * embeddings + softmax


def launch(settings: dict[str, Any], nodes: int, local: int, folder: Path) -> dict[str, Any]:
    """What rank 0 of a layout found, see ``scaling_rank``; ``folder`` is for files between."""
    output = folder / f"{nodes}_{local}.json"
    told = folder / f"{nodes}_{local}.settings.json"
    told.write_text(json.dumps(settings | {"output": str(output)}))
    common = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={local}"]
    # Where there is one agent it finds a port by itself.
    meets = ["--standalone"]
    if nodes > 1:
        meets = [f"--nnodes={nodes}", "--master-addr=127.0.0.1", f"--master-port={_free_port()}"]
    rank = ["-m", "arcface_cakd.bench.scaling_rank", str(told)]
    agents, logs = [], []
    try:
        for node in range(nodes):
            which = [] if nodes == 1 else [f"--node-rank={node}"]
            logs.append(folder / f"{nodes}_{local}_{node}.log")
            with open(logs[-1], "w", encoding="utf-8") as log:
                command = [*common, *meets, *which, *rank]
                agents.append(subprocess.Popen(command, stdout=log, stderr=log))
        failed = _first_failure(agents)
    finally:
        for agent in agents:
            agent.terminate()  # does nothing to one that has ended
            agent.wait()
    if failed is not None:
        lines = logs[failed].read_text(encoding="utf-8").splitlines() or ["it said nothing"]
        said = [line for line in lines if _RAISED.match(line)] or lines[-1:]
        raise BenchError(f"{nodes} node(s) of {local} rank(s) failed: {said[0].strip()}")
    return json.loads(output.read_text(encoding="utf-8"))


def _first_failure(agents: list[subprocess.Popen]) -> int | None:
    """Wait until all agents have ended well (None), or one has not: its number."""
    while True:
        codes = [agent.poll() for agent in agents]
        for number, code in enumerate(codes):
            if code:
                return number
        if None not in codes:
            return None
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]
