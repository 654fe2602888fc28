"""Measure what reading the index of a large record set takes: CPU seconds and memory.

    python eval/index_reading.py --json eval/benchmarks/index_reading.json

An index as insightface writes it, keys without gaps, is made in a temporary folder and read by
processes of their own, one thread each. Memory is what a process has above what it has with the
program loaded: at most, and at the end. Linux alone tells it.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from arcface_cakd.bench.machine import machine
from arcface_cakd.files import write_text


def read(path: Path) -> dict[str, float]:
    """Read an index in this process; CPU seconds, MiB at most and MiB kept."""
    from arcface_cakd.recordio.index import read_index

    before = mib("VmRSS"), mib("VmHWM")
    begin = time.process_time()
    index = read_index(path)
    seconds = time.process_time() - begin
    found = {"cpu_seconds": seconds, "mib_at_most": mib("VmHWM") - before[1]}
    return found | {"mib_kept": mib("VmRSS") - before[0], "lines": len(index)}


def mib(name: str) -> float:
    """A size of this process, as the system has it."""
    status = Path("/proc/self/status").read_text()
    return (
        next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) / 1024
    )


def measured(lines: int, rounds: int) -> list[dict[str, float]]:
    """What each of some processes found."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.idx"
        with open(path, "w") as file:
            file.writelines(f"{key}\t{key * 4608}\n" for key in range(lines))
        command = [sys.executable, __file__, "--read", str(path)]
        return [json.loads(subprocess.check_output(command)) for _ in range(rounds)]


def main() -> None:
    """Measure, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lines", type=int, default=5_800_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read)))
        return
    found = measured(args.lines, args.rounds)
    report = {
        "command": f"python eval/index_reading.py --lines {args.lines} --rounds {args.rounds}",
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "rounds": found,
        "medians": {name: statistics.median(each[name] for each in found) for name in found[0]},
    }
    print(json.dumps(report["medians"]))
    if args.json:
        write_text(args.json, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
