import os
import signal
import sys
import time

import pytest
import torch
import torch.distributed as dist
from helpers.processes import RankFailed, run_ranks, started
from torch import nn

from arcface_cakd import distributed
from arcface_cakd.distributed import DistributedError
from arcface_cakd.errors import ArcfaceCakdError

LAUNCH = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",  # any free port
}


def local_part(rank, batch=3):
    return torch.randn(batch, 2, 4, generator=torch.Generator().manual_seed(rank)).double()


def rank_loss(joined, rank):
    """A loss that differs between ranks and couples all slices."""
    factors = torch.linspace(-1, 1, joined.numel(), dtype=joined.dtype).view_as(joined) + rank
    return (joined * factors).sin().sum() * joined.square().mean()


def odd_module(seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module[1].running_mean.normal_()
    module[1].num_batches_tracked.fill_(seed)
    return module.to(memory_format=torch.channels_last)


def on_each_rank():
    rank = distributed.rank()
    part = local_part(rank).requires_grad_()
    results = {
        "place": (rank, distributed.world_size(), distributed.local_rank(), distributed.is_main()),
        "gathered": distributed.all_gather(part),
        "strided": distributed.all_gather(local_part(rank).transpose(0, 2)),
        "labels": distributed.all_gather(torch.tensor([rank, 7])),
        "objects": distributed.gather_objects({"rank": rank}),
    }
    for scale in (1.0, 5.0):
        part.grad = None
        joined = distributed.all_gather_with_grad(part, gradient_scale=scale)
        assert torch.equal(joined, results["gathered"])
        rank_loss(joined, rank).backward()
        results[f"gradient {scale}"] = part.grad

    part.grad = None
    results["sum"] = distributed.all_reduce_with_grad(part.transpose(0, 2)).transpose(0, 2)
    assert torch.equal(part, local_part(rank))
    rank_loss(results["sum"], rank).backward()
    results["sum"], results["gradient of sum"] = results["sum"].detach(), part.grad

    number = torch.tensor([rank, 10.0 * rank], requires_grad=True)
    results["mean"] = distributed.all_reduce_mean(number)
    assert number.tolist() == [rank, 10.0 * rank] and not results["mean"].requires_grad

    module = odd_module(seed=rank)
    distributed.broadcast_module(module)
    results["module"] = module.state_dict()
    results["layout"] = module[0].weight.is_contiguous(memory_format=torch.channels_last)
    distributed.barrier()
    return results


@pytest.fixture(scope="module", params=[1, 2, 3])
def world(request, tmp_path_factory):
    """What each rank returned; the world of one rank has no process group."""
    if request.param == 1:
        return [on_each_rank()]
    return run_ranks(on_each_rank, request.param, tmp_path_factory.mktemp("world"))


def test_every_rank_knows_its_place(world):
    size = len(world)
    assert [r["place"] for r in world] == [(k, size, k, k == 0) for k in range(size)]


def test_all_gather_joins_in_order_of_ranks(world):
    parts = [local_part(rank) for rank in range(len(world))]
    for result in world:
        assert torch.equal(result["gathered"], torch.cat(parts))
        assert torch.equal(result["strided"], torch.cat([p.transpose(0, 2) for p in parts]))
        assert result["labels"].tolist() == [n for rank in range(len(world)) for n in (rank, 7)]
        assert result["objects"] == [{"rank": rank} for rank in range(len(world))]


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_gradient_is_that_of_the_sum_of_losses(world, scale):
    parts = [local_part(rank).requires_grad_() for rank in range(len(world))]
    total = sum(rank_loss(torch.cat(parts), rank) for rank in range(len(world)))
    for result, expected in zip(world, torch.autograd.grad(total, parts), strict=True):
        torch.testing.assert_close(
            result[f"gradient {scale}"], scale * expected, rtol=1e-12, atol=1e-12
        )


def test_gradient_through_a_sum_is_that_of_the_sum_of_losses(world):
    parts = [local_part(rank).requires_grad_() for rank in range(len(world))]
    total = sum(parts)
    losses = sum(rank_loss(total, rank) for rank in range(len(world)))
    for result, expected in zip(world, torch.autograd.grad(losses, parts), strict=True):
        torch.testing.assert_close(result["sum"], total.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(result["gradient of sum"], expected, rtol=1e-12, atol=1e-12)


def test_all_reduce_mean(world):
    middle = (len(world) - 1) / 2
    assert all(result["mean"].tolist() == [middle, 10 * middle] for result in world)


def test_broadcast_gives_all_ranks_the_first_ones_state(world):
    expected = odd_module(seed=0).state_dict()
    for result in world:
        assert result["layout"]
        for key, value in expected.items():
            assert torch.equal(result["module"][key], value), key


def second_rank_fails():
    if distributed.rank() == 1:
        raise ValueError("the cause")
    dist.barrier()


def test_failing_rank_is_named(tmp_path):
    with pytest.raises(RankFailed, match=r"(?s)rank 1 of 2:.*ValueError: the cause"):
        run_ranks(second_rank_fails, 2, tmp_path)


def lose_a_rank():
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="1")  # the group has met already
    with distributed.process_group():
        distributed.barrier()  # or rank 0 may still be connecting when rank 1 is gone
        if distributed.rank() == 1:
            os._exit(0)
        distributed.all_gather(torch.ones(2))


def test_a_lost_peer_is_a_mistake_in_one_line(tmp_path):
    with pytest.raises(RankFailed, match="DistributedError: rank 0 lost its connection"):
        run_ranks(lose_a_rank, 2, tmp_path)


def meet(rank, port, late, folder):
    """As torchrun starts it; the one that is late comes when the others are waiting."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE="2",
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",
    )
    if rank == late:
        time.sleep(1)
    distributed.init_from_env("gloo")
    found = str(distributed.gather_objects(rank))
    (folder / f"{rank}.partial").write_text(found)
    os.replace(folder / f"{rank}.partial", folder / f"{rank}.txt")
    signal.pause()  # until it is killed


@pytest.mark.parametrize("late", [0, 1])
def test_ranks_that_are_started_anew_do_not_look_for_the_dead(tmp_path, late):
    """``torchrun --max-restarts`` keeps its store, and in it the former addresses."""
    agent = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for start in range(2):
        folder = tmp_path / str(start)
        folder.mkdir()
        context = started(meet, 2, agent.port, None if start == 0 else late, folder)
        deadline = time.monotonic() + 60
        # One that cannot connect ends.
        while len(found := sorted(folder.glob("*.txt"))) < 2 and time.monotonic() < deadline:
            if not all(process.is_alive() for process in context.processes):
                break
            time.sleep(0.05)
        for process in context.processes:
            process.kill()
        assert [path.read_text() for path in found] == ["[0, 1]"] * 2


def leave_at_once(folder, times):
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="1")
    sys.setswitchinterval(60.0)  # whoever has the interpreter's lock keeps it till it must wait
    size, rank = distributed.world_size(), distributed.rank()
    for i in range(times):
        if i > 0:
            store = (folder / f"store{i}").as_uri()
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
        with distributed.process_group("gloo"):
            for _ in range(3):
                dist.broadcast(torch.zeros(2000), 0)
    return times


def test_a_group_left_right_after_a_collective_comes_to_its_end(tmp_path):
    assert run_ranks(leave_at_once, 2, tmp_path, tmp_path, 10, timeout=30) == [10, 10]


def set_up(failing):
    """What a rank says of a block that fails on the ranks given."""
    try:
        with distributed.failing_together():
            if distributed.rank() in failing:
                raise ArcfaceCakdError(f"no data on rank {distributed.rank()}")
    except ArcfaceCakdError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        ((), [None, None]),
        ((1,), ["rank 1: no data on rank 1", "no data on rank 1"]),
        ((0, 1), ["no data on rank 0", "no data on rank 1"]),
    ],
)
def test_a_mistake_on_one_rank_stops_all(tmp_path, failing, said):
    assert run_ranks(set_up, 2, tmp_path, failing) == said


def set_launch(monkeypatch, **changes):
    for name, value in (LAUNCH | changes).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def test_without_torchrun_there_is_no_group(monkeypatch):
    set_launch(monkeypatch, **dict.fromkeys(LAUNCH))
    with distributed.process_group("gloo") as device:
        assert device == torch.device("cpu")
        assert not dist.is_initialized()
    assert (distributed.rank(), distributed.world_size(), distributed.local_rank()) == (0, 1, 0)


def test_group_lives_as_long_as_its_block(monkeypatch):
    set_launch(monkeypatch)
    with distributed.process_group("gloo") as device:
        assert dist.is_initialized() and dist.get_backend() == "gloo"
        assert distributed.init_from_env("gloo") == device == torch.device("cpu")
        assert distributed.all_gather(torch.tensor([3])).tolist() == [3]
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("changes", "backend", "message"),
    [
        ({"WORLD_SIZE": None}, "gloo", "sets RANK but not WORLD_SIZE: start with torchrun"),
        ({"RANK": None}, "gloo", "sets WORLD_SIZE but not RANK: start with torchrun"),
        ({"MASTER_PORT": None, "MASTER_ADDR": None}, "gloo", "not MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "first"}, "gloo", "RANK is 'first', not a whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "gloo", "RANK is 2 and WORLD_SIZE 2"),
        ({}, "mpi", "'nccl' or 'gloo', got 'mpi'"),
    ],
)
def test_broken_launches_get_one_line(monkeypatch, changes, backend, message):
    set_launch(monkeypatch, **changes)
    with pytest.raises(DistributedError, match=message) as error:
        distributed.init_from_env(backend)
    assert "\n" not in str(error.value)
    assert not dist.is_initialized()


def test_more_ranks_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DistributedError, match="this machine has none: use gloo"):
        distributed.init_from_env("nccl")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    set_launch(monkeypatch, RANK="2", WORLD_SIZE="3", LOCAL_RANK="2")
    with pytest.raises(DistributedError, match=r"LOCAL_RANK is 2 .* 2 GPU\(s\)"):
        distributed.init_from_env()
