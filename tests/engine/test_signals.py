"""A signal ends a run after its step, with a checkpoint that it goes on from."""

import dataclasses
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from helpers.engine_runs import assert_same_state, small_config
from helpers.processes import as_torchrun, run_ranks

from arcface_cakd.cli import main
from arcface_cakd.config import ConfigError
from arcface_cakd.distributed import rank
from arcface_cakd.engine import RunStoppedError, checkpoint_path, train
from arcface_cakd.engine.builders import Run
from arcface_cakd.engine.interrupts import SIGNALS, Asked, Interrupts


@pytest.fixture(autouse=True)
def every_signal_is_heard():
    """Also where the tests run in a shell's background or under nohup, which ignore some."""
    before = {
        number: signal.signal(number, default)
        for number, default in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGHUP, signal.SIG_DFL),
        )
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGUSR1": 138, "SIGHUP": 129}


def in_step(step, act):
    """A ``Run.terms`` that does something besides, in that step of the process."""
    plain, calls = Run.terms, []

    def terms(self, *batch):
        calls.append(1)
        if len(calls) == step:
            act(self)
        return plain(self, *batch)

    return terms


@pytest.mark.parametrize("name", CODES)
def test_each_signal_has_its_code(name):
    with Interrupts(torch.device("cpu")) as interrupts:
        os.kill(os.getpid(), getattr(signal, name))
        asked = interrupts.agreed()
    assert asked == Asked(getattr(signal, name), checkpoint=True)
    assert RunStoppedError(asked.leave, 1, Path("out")).exit_code == CODES[name]


def test_a_signal_leaves_a_checkpoint_to_go_on_from(faces, tmp_path, monkeypatch):
    """Also in a run that keeps none, and where its worker is sent it too, as a whole job is."""
    config = small_config(faces, tmp_path / "out", num_epoch=1, num_workers=1)
    handler = signal.getsignal(signal.SIGTERM)

    def send(run):
        (worker,) = run.loader._loader._iterator._workers
        os.kill(worker.pid, signal.SIGTERM)
        worker.join(0.2)  # by when it would be dead
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "terms", in_step(3, send))
        with pytest.raises(RunStoppedError, match="stopped by SIGTERM after step 3") as stopped:
            train(config)
    assert stopped.value.exit_code == 143 and "\n" not in str(stopped.value)
    assert signal.getsignal(signal.SIGTERM) == handler
    alone = dict(save_all_states=True, num_workers=0)
    resumed = train(dataclasses.replace(config, resume="auto", **alone))
    straight = train(dataclasses.replace(config, output=str(tmp_path / "straight"), **alone))
    left, right = (
        torch.load(checkpoint_path(result.output), weights_only=True)
        for result in (resumed, straight)
    )
    assert_same_state(left, right)


def test_a_run_that_ended_after_a_signal_is_not_begun_again(faces, tmp_path, monkeypatch):
    """One that keeps no checkpoints but that of the signal, by the same line each time."""
    config = small_config(faces, tmp_path, num_epoch=1, resume="auto")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "terms", in_step(3, lambda run: os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(RunStoppedError):
            train(config)
    assert train(config).global_step == 9
    model = (tmp_path / "model.pt").read_bytes()
    assert torch.load(checkpoint_path(tmp_path), weights_only=True)["global_step"] == 9
    monkeypatch.setattr(Run, "terms", in_step(1, lambda run: pytest.fail("another micro-step")))
    assert train(config).global_step == 9
    assert (tmp_path / "model.pt").read_bytes() == model


def test_the_command_ends_with_one_line_and_the_signals_code(faces, tmp_path, monkeypatch, capsys):
    config = tmp_path / "tiny.py"
    config.write_text(
        "from easydict import EasyDict as edict\n"
        f"config = edict(rec={str(faces)!r}, network='test_tiny', embedding_size=16,\n"
        "              batch_size=4, num_workers=0, val_targets=[])\n"
    )
    monkeypatch.setattr(Run, "terms", in_step(2, lambda run: os.kill(os.getpid(), signal.SIGTERM)))
    output = tmp_path / "out"
    assert main(["train", str(config), "--set", f"output={output}", "resume=auto"]) == 143
    (line,) = [s for s in capsys.readouterr().err.splitlines() if s.startswith("arcface-cakd")]
    assert line.startswith("arcface-cakd train: stopped by SIGTERM after step 2, which is saved in")


def sent_to_the_last_rank(config):
    as_torchrun()
    Run.terms = in_step(3, lambda run: rank() == 1 and os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(RunStoppedError) as stopped:
        train(config)
    content = torch.load(checkpoint_path(config.output, rank()), weights_only=True)
    return str(stopped.value), content["global_step"]


def test_all_ranks_hear_of_a_signal_to_one(faces, tmp_path):
    found = run_ranks(sent_to_the_last_rank, 2, tmp_path, small_config(faces, tmp_path / "out"))
    assert found[0] == found[1] and "SIGUSR1" in found[0][0] and found[0][1] == 3


def test_ctrl_c_twice_ends_at_once():
    with Interrupts(torch.device("cpu")) as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.agreed().leave == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signals_that_are_ignored_stay_so():
    """As nohup has it."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts(torch.device("cpu")) as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.agreed().leave is None
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_process_that_is_forked_meanwhile_ignores_them():
    """A loader's worker, without which the step could not be finished."""
    with Interrupts(torch.device("cpu")) as interrupts:
        child = os.fork()
        if child == 0:
            for number in SIGNALS:
                os.kill(os.getpid(), number)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert interrupts.agreed().leave is None


def test_outside_of_the_main_thread_it_takes_no_signals():
    found = []

    def work():
        with Interrupts(torch.device("cpu")) as interrupts:
            found.append(interrupts.agreed().leave)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]


def test_auto_begins_where_there_is_no_checkpoint(faces, tmp_path):
    """Also where a kill left a model.pt and no checkpoint, which is set aside."""
    (tmp_path / "model.pt").write_bytes(b"of before")
    config = small_config(faces, tmp_path, num_epoch=1, resume="auto", save_all_states=True)
    assert train(config, stop_after_step=4).global_step == 4
    assert (tmp_path / "model.pt.old").read_bytes() == b"of before"
    assert train(config).global_step == 9
    assert train(config).global_step == 9


def test_auto_leaves_the_model_of_a_run_that_keeps_no_checkpoints(faces, tmp_path):
    """Which may have ended well."""
    (tmp_path / "model.pt").write_bytes(b"of before")
    config = small_config(faces, tmp_path, num_epoch=1, resume="auto")
    with pytest.raises(ConfigError, match=r"holds another run \(model\.pt\)"):
        train(config)
    assert os.listdir(tmp_path) == ["model.pt"]


def test_auto_says_where_a_kill_would_leave_nothing(faces, tmp_path, caplog):
    said = "set save_all_states=True"
    config = small_config(faces, tmp_path / "none", num_epoch=1, resume="auto")
    train(config, stop_after_step=1)
    assert said in caplog.text
    caplog.clear()
    train(dataclasses.replace(config, output=str(tmp_path / "kept"), checkpoint_every=1))
    train(dataclasses.replace(config, output=str(tmp_path / "plain"), resume=False))
    assert said not in caplog.text
