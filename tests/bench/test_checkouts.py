"""Other projects' code is found, imported, and forgotten again."""

import os
import sys
from types import ModuleType

import pytest
import torch
import torch.distributed as dist

from arcface_cakd.bench import BenchError
from arcface_cakd.bench.checkouts import find_checkout, importable
from arcface_cakd.bench.on_cpu import cuda_calls_on_cpu


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "their_utils.py").write_text("import their_reader\nNAME = their_reader.NAME\n")
    return tmp_path


def test_code_of_a_checkout_is_there_for_the_block_alone(checkout):
    before, path = os.getcwd(), list(sys.path)
    stand_in = ModuleType("their_reader")
    stand_in.NAME = "ours"
    with importable(checkout, their_reader=stand_in):
        import their_utils

        assert their_utils.NAME == "ours"
        assert os.getcwd() == str(checkout)
    assert not {"their_utils", "their_reader"} & set(sys.modules)
    assert (os.getcwd(), sys.path) == (before, path)


def test_a_name_that_two_projects_have_is_each_time_the_right_one(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same_name.py").write_text(f"NAME = {name!r}\n")
    for name in ("one", "other"):
        with importable(tmp_path / name):
            import same_name

            assert name == same_name.NAME


def test_a_module_that_was_there_is_there_again(checkout):
    import json

    with importable(checkout, json=ModuleType("json")):
        assert sys.modules["json"] is not json
    assert sys.modules["json"] is json


def test_a_folder_that_is_no_checkout_gets_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("THEIRS", raising=False)
    assert find_checkout(None, "THEIRS", "train.py") is None
    monkeypatch.setenv("THEIRS", str(tmp_path))
    with pytest.raises(BenchError, match=r"no train\.py there"):
        find_checkout(None, "THEIRS", "train.py")
    (tmp_path / "train.py").touch()
    assert find_checkout(None, "THEIRS", "train.py") == tmp_path.resolve()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is asked for and found")
def test_calls_for_a_gpu_land_on_the_cpu():
    linear = torch.nn.Linear(2, 2)
    with cuda_calls_on_cpu():
        assert linear.cuda() is linear
        assert torch.ones(2).cuda(0).device.type == "cpu"
        assert torch.ones(2).to(0, non_blocking=True).device.type == "cpu"
        assert torch.ones(2).to(torch.float64).dtype == torch.float64
        dist.init_process_group("nccl")  # which there is not
        assert dist.get_world_size() == 1
        parallel = torch.nn.parallel.DistributedDataParallel(linear, device_ids=[0])
        parallel(torch.ones(1, 2)).sum().backward()
        assert linear.weight.grad is not None
        with torch.cuda.stream(torch.cuda.Stream(0)):
            torch.cuda.current_stream().wait_stream(torch.cuda.Stream(0))
    assert not dist.is_initialized()
    with pytest.raises((AssertionError, RuntimeError)):
        torch.ones(2).cuda()
