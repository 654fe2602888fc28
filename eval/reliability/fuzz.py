"""Hands each parser a number of damaged and hostile files, and counts what comes of it.

    python eval/reliability/fuzz.py --targets bin rec --json eval/reliability/fuzz.json

A mutant passes where it is read, or refused with an error that is documented, of one line; counted
are crashes, hangs (5 s of CPU time on one file), files that took 1 GB, and errors that are not
documented. Each is named by its number: ``--only bin 1234`` reads that one, with its traceback.
``--more`` goes on after those that the JSON has, so that a million may be reached in several runs.
"""

import argparse
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.mutants import TARGETS, Target, mutant  # noqa: E402

SECONDS = 5
MEMORY = 1 << 20  # KiB
KINDS = ("read", "refused", "undocumented", "crashes", "hangs", "over_1_GB")
_CHUNK = 5000
_SHOWN = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--mutants", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, help="leave a parser after so many")
    parser.add_argument("--json", type=Path, help="write the counts there")
    parser.add_argument("--more", action="store_true", help="add to what the JSON has")
    parser.add_argument("--only", nargs=2, metavar=("TARGET", "NUMBER"))
    args = parser.parse_args()
    if args.only:
        with tempfile.TemporaryDirectory() as folder:
            target = TARGETS[args.only[0]]
            corpus = target.corpus(Path(folder))
            data = mutant(target, corpus, _random(args.only[0], int(args.only[1])))
            print(data[:2000])
            target.read(data, Path(folder))
        return
    for name in args.targets:
        there = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
        former = there.get(name, {}) if args.more else {}
        counts = run(name, args.mutants, args.minutes, former)
        print(name, json.dumps(counts), flush=True)
        if args.json:
            args.json.write_text(json.dumps({**there, name: counts}, indent=1) + "\n")


def run(name: str, number: int, minutes: float | None, former: dict) -> dict:
    """The counts of a parser, with those of a former run."""
    begun, total, shown = time.monotonic(), Counter(), list(former.get("shown", []))
    total.update({kind: former.get(kind, 0) for kind in KINDS})
    before = _cpu_seconds()
    # In memory, where there is such a disk: it is about reading, not about disks.
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        start = former.get("mutants", 0)
        while start < number:
            if minutes is not None and time.monotonic() - begun > 60 * minutes:
                break
            start, counts, notes = _chunk(name, start, min(start + _CHUNK, number), Path(folder))
            total.update(counts)
            shown += notes
    return {
        "mutants": start,
        **{kind: total[kind] for kind in KINDS},
        "shown": shown[:_SHOWN],
        "cpu_seconds": round(former.get("cpu_seconds", 0) + _cpu_seconds() - before),
    }


def _cpu_seconds() -> float:
    """Of all children that have ended."""
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    return cpu.ru_utime + cpu.ru_stime


def _random(name: str, number: int) -> random.Random:
    return random.Random(f"{name} {number}")


def _chunk(name: str, start: int, stop: int, folder: Path) -> tuple[int, Counter, list[str]]:
    """Mutants from ``start`` on, in a process of their own: the next to do, counts, notes."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        code = 1
        try:
            _read_all(TARGETS[name], name, range(start, stop), folder, writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    counts, notes, at = Counter(), [], start
    with os.fdopen(reading, "rb") as pipe:
        while head := pipe.read(8):
            at, length = struct.unpack("<II", head)
            kind, _, note = pipe.read(length).decode().partition(" ")
            counts[kind] += 1
            if note:
                notes.append(f"{at}: {kind} {note}")
            at += 1
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kind = "hangs" if os.WTERMSIG(status) == signal.SIGPROF else "crashes"
        counts[kind] += 1
        notes.append(f"{at}: {kind} (signal {os.WTERMSIG(status)})")
        at += 1
    elif status:
        raise RuntimeError(f"no mutant could be made or reported: see --only {name} {at}")
    return at, counts, notes


def _read_all(target: Target, name: str, numbers: range, folder: Path, pipe: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    corpus = target.corpus(folder)
    for number in numbers:
        data = mutant(target, corpus, _random(name, number))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # whose signal ends the process
        try:
            target.read(data, folder)
            said = "read"
        except target.errors as error:
            said = "refused" if "\n" not in str(error) else f"undocumented many lines: {error}"
        except (Exception, SystemExit) as error:
            said = f"undocumented {type(error).__name__}: {error}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if grown > MEMORY:
            said = f"over_1_GB {grown >> 10} MiB"
        text = said[:300].encode("utf-8", "backslashreplace")
        os.write(pipe, struct.pack("<II", number, len(text)) + text)
        if grown > MEMORY:  # the highest so far would hide the next one's
            return


if __name__ == "__main__":
    main()
