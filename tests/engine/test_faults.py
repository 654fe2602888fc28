"""What befalls a run is one true line that says what to do."""

import errno
import os
import shutil
import signal
import threading

import pytest
import torch
from helpers.engine_runs import small_config

from arcface_cakd.engine import EngineError, train
from arcface_cakd.engine.board import Board
from arcface_cakd.engine.builders import Run
from arcface_cakd.engine.faults import said_in_one_line


def befallen(monkeypatch, config, act):
    """The line of a run to which something happens in its third step."""
    plain, calls = Run.terms, []

    def terms(self, *batch):
        calls.append(1)
        if len(calls) == 3:
            act(self)
        return plain(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "terms", terms)
        with pytest.raises(EngineError) as error:
            train(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_worker_that_is_killed(faces, tmp_path, monkeypatch):
    config = small_config(faces, tmp_path / "out", num_workers=1, batch_size=2)

    def kill(run):
        iterator = run.loader._loader._iterator
        os.kill(iterator._workers[0].pid, signal.SIGKILL)
        iterator._workers[0].join()

    said = befallen(monkeypatch, config, kill)
    assert "a process that reads images was lost" in said and "num_workers (now 1)" in said


def test_memory_that_runs_out(faces, tmp_path, monkeypatch):
    def exhaust(run):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    config = small_config(faces, tmp_path)
    with pytest.raises(EngineError, match="lower batch_size"), said_in_one_line(config):
        raise MemoryError("numpy's")
    said = befallen(monkeypatch, small_config(faces, tmp_path / "out"), exhaust)
    assert "lower batch_size (now 4)" in said and "bf16=True" in said
    enough = small_config(faces, tmp_path / "bf16", bf16=True, sample_rate=0.5)
    said = befallen(monkeypatch, enough, exhaust)
    assert said == "out of memory: lower batch_size (now 4) and raise gradient_acc as much"


def test_memory_of_the_processor_that_runs_out(faces, tmp_path, monkeypatch):
    """By torch's own error."""
    said = befallen(
        monkeypatch, small_config(faces, tmp_path / "out"), lambda run: torch.empty(2**60)
    )
    assert said.startswith("out of memory: lower batch_size")


def test_an_output_that_vanishes(faces, tmp_path, monkeypatch):
    output = tmp_path / "out"
    config = small_config(faces, output, checkpoint_every=1)
    said = befallen(monkeypatch, config, lambda run: shutil.rmtree(output))
    assert said.startswith(f"output {output} is gone")


def test_a_file_that_cannot_be_written_is_named(faces, tmp_path, monkeypatch):
    output = tmp_path / "out"

    def spoil(run):
        (output / "metrics.jsonl").unlink()
        (output / "metrics.jsonl").mkdir()

    said = befallen(monkeypatch, small_config(faces, output), spoil)
    assert said.startswith(f"{output / 'metrics.jsonl'} cannot be written (Is a directory)")


@pytest.mark.parametrize("settings", [{}, {"checkpoint_every": 2}], ids=["log", "checkpoint"])
def test_an_output_that_turns_read_only(faces, tmp_path, monkeypatch, settings):
    """By what the system says of it: permissions would not hinder root."""
    output, real = tmp_path / "out", os.open

    def refusing(path, flags, *more, **options):
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and str(path).startswith(f"{output}{os.sep}"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *more, **options)

    config = small_config(faces, output, **settings)
    said = befallen(monkeypatch, config, lambda run: monkeypatch.setattr(os, "open", refusing))
    file = "checkpoint_gpu_0.pt" if settings else "metrics.jsonl"
    assert f"{output / file} cannot be written (Read-only file system)" in said


def test_errors_of_other_places_go_through(faces, tmp_path):
    config = small_config(faces, tmp_path)
    for error in (
        FileNotFoundError(2, "No such file", "/elsewhere"),
        RuntimeError("a bug"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        OSError("Caught OSError in DataLoader worker process 0.\nOriginal Traceback ..."),
    ):
        with pytest.raises(type(error)), said_in_one_line(config):
            raise error


def test_a_run_does_without_tensorboard(tmp_path, caplog, monkeypatch):
    board = Board(tmp_path / "board", purge_step=1)
    board.add("loss", 1.0, step=1)

    def refuse(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(board._writer, "add_scalar", refuse)
    for step in range(3):
        board.add("loss", 1.0, step)
    board.close()
    (record,) = caplog.records
    assert "TensorBoard gets no more figures (No space left on device)" in record.getMessage()


def test_the_thread_of_tensorboard_prints_no_traceback(tmp_path, monkeypatch):
    """And any other thread does what it always does."""
    said = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    board = Board(tmp_path / "board", purge_step=1)
    for module in ("tensorboard.writer", "mine"):
        kind = type("Thread", (threading.Thread,), {"__module__": module, "run": _full})
        thread = kind()
        thread.start()
        thread.join()
    assert [type(args.thread).__module__ for args in said] == ["mine"]
    board.close()
    assert threading.excepthook == said.append


def _full(thread):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_run_begins_without_tensorboard(tmp_path, caplog):
    (tmp_path / "board").write_text("no folder")
    board = Board(tmp_path / "board", purge_step=1)
    board.add("loss", 1.0, step=1)
    board.close()
    assert "TensorBoard gets no more figures" in caplog.text
