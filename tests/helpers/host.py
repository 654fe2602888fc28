"""A patched copy of the real arcface_torch, and runs of its scripts on the CPU, for tests."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

import arcface_cakd
from arcface_cakd import patching

HELPERS = Path(__file__).parent
RUNNER = HELPERS / "arcface_torch_on_cpu.py"
RECORDER = HELPERS / "host_recorder.py"
PACKAGE = Path(arcface_cakd.__file__).parent.parent


@dataclass
class HostRun:
    """A run that has ended.

    Attributes:
        code: exit status.
        out: standard output, and ``err`` standard error.
        output: the run's output folder.
        records: what each rank recorded (see ``host_recorder``).
    """

    code: int
    out: str
    err: str
    output: Path
    records: list[dict] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """Of each step, on rank 0."""
        return self.records[0]["losses"]

    def load(self, name: str):
        return torch.load(self.output / name, weights_only=True)

    def checkpoint(self, rank: int = 0) -> dict:
        return self.load(f"checkpoint_gpu_{rank}.pt")

    @property
    def log(self) -> str:
        return (self.output / "training.log").read_text()


class Host:
    """A copy of arcface_torch that tests may write to.

    Args:
        folder: the copy.
        defaults: settings of every config.
    """

    def __init__(self, folder: Path, **defaults):
        self.folder = folder
        self.defaults = defaults

    def train(
        self,
        name: str,
        processes: int = 1,
        env: dict | None = None,
        check: bool = True,
        before: str = "",
        **settings,
    ) -> HostRun:
        """Train by a config of these settings, through ``torchrun`` where there are more processes.

        Args:
            name: of the config and, unless ``output`` says otherwise, of the output folder.
            processes: ranks.
            env: for the recorder and the process.
            check: whether it must succeed.
            before: lines that the config begins with.
            settings: the config's, dicts as ``edict``.

        Raises:
            AssertionError: it did not exit with 0, and ``check`` is on.
        """
        settings = {"output": self.folder / "work_dirs" / name, **self.defaults, **settings}
        lines = [before, "from easydict import EasyDict as edict", "config = edict()"]
        lines += [f"config.{key} = {as_source(value)}" for key, value in settings.items()]
        (self.folder / "configs" / f"{name}.py").write_text("\n".join(lines) + "\n")
        records = self.folder / "records" / name
        shutil.rmtree(records, ignore_errors=True)
        records.mkdir(parents=True)
        command = [str(RUNNER), f"configs/{name}"]
        if processes > 1:
            command = [
                *("-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
                *("--master-port", str(free_port()), *command),
            ]
        env = {"SCRIPT": str(RECORDER), "RECORD": str(records), **(env or {})}
        run = self._run(command, env)
        run.output = Path(settings["output"])
        run.records = [torch.load(path) for path in sorted(records.glob("rank*.pt"))]
        if check:
            assert run.code == 0, f"{name} exited {run.code}\n{_tail(run)}"
        return run

    def script(self, *command: str, **env: str) -> HostRun:
        """Run Python on another script of the host, as it stands.

        Raises:
            AssertionError: it did not exit with 0.
        """
        run = self._run([str(part) for part in command], env)
        assert run.code == 0, f"{command[0]} exited {run.code}\n{_tail(run)}"
        return run

    def _run(self, command: list[str], env: dict, timeout: int = 300) -> HostRun:
        ours = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        path = [env.pop("PYTHONPATH", ""), str(PACKAGE), kept.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            [sys.executable, *command],
            env={
                **kept,
                "ARCFACE_TORCH": str(self.folder),
                "PORT": str(free_port()),
                "CUDA_VISIBLE_DEVICES": "",  # the runner emulates CUDA where there is none
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(part for part in path if part),
                **env,
            },
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # torchrun's ranks too
            out, err = process.communicate()
            raise AssertionError(f"over {timeout} s\n{out[-2000:]}\n{err[-4000:]}") from None
        return HostRun(process.returncode, out, err, self.folder)


def patched(checkout: Path, folder: Path, only: str | None = None, **settings) -> Host:
    """A patched copy of a checkout.

    Args:
        checkout: its recognition/arcface_torch, for reading only.
        folder: where the copy shall be.
        only: one set of patches; None: all.
        settings: of every config, besides those that make runs small.
    """
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns("work_dirs", "__pycache__"))
    patching.revert(folder)
    patching.patch(folder, only, recipes=[])
    small = dict(
        embedding_size=64,
        batch_size=8,
        num_epoch=1,
        warmup_epoch=0,
        lr=0.02,
        # With none, the host's loader thread and Partial FC's sampling race for random numbers.
        num_workers=1,
        frequent=1,
        verbose=5,
        save_all_states=True,
    )
    return Host(folder, **{**small, **settings})


def side_by_side(*jobs):
    """Call every job, two at a time, as a run is mostly one core's imports; their results."""
    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def differences(left, right, where: str = "") -> list[str]:
    """Where two nests of dicts, lists, tensors and numbers differ in a single bit."""
    if type(left) is not type(right):
        return [f"{where}: {type(left).__name__} and {type(right).__name__}"]
    if isinstance(left, dict):
        if list(left) != list(right):
            return [f"{where}: other keys"]
        return [d for key in left for d in differences(left[key], right[key], f"{where}/{key}")]
    if isinstance(left, list | tuple):
        if len(left) != len(right):
            return [f"{where}: {len(left)} and {len(right)} items"]
        pairs = enumerate(zip(left, right, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{where}/{i}")]
    same = torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
    return [] if same else [where]


def as_source(value) -> str:
    """``value`` as source text, dicts as ``edict(...)``."""
    if isinstance(value, dict):
        return f"edict({', '.join(f'{k}={as_source(v)}' for k, v in value.items())})"
    if isinstance(value, list):
        return f"[{', '.join(map(as_source, value))}]"
    return repr(str(value) if isinstance(value, Path) else value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _tail(run: HostRun) -> str:
    return f"--- stdout\n{run.out[-2000:]}\n--- stderr\n{run.err[-5000:]}"
