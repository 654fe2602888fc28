"""Flips single bits at random places of files that we wrote, and counts how many are seen.

    python eval/reliability/flips.py --flips 1000 --json eval/reliability/flips.json

Each flip is in the file as it was written, alone, and the file is read as a run reads it: a
checkpoint to be resumed from, weights to be loaded, with and without their model.json, a
verification set, and of records what `data verify` and training (`check_records`) look at. Of flips
that are not seen it is counted whether what was read is what was written, to the bit.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from helpers.record_sets import jpeg  # noqa: E402
from torch import nn  # noqa: E402

from arcface_cakd.backbones.weights import read_weights, save_weights  # noqa: E402
from arcface_cakd.data import write_bin, write_identity_records  # noqa: E402
from arcface_cakd.data.bins import load_bin  # noqa: E402
from arcface_cakd.engine.checkpoint_state import read_checkpoint  # noqa: E402
from arcface_cakd.errors import ArcfaceCakdError  # noqa: E402
from arcface_cakd.recordio.block_digests import BlockDigests  # noqa: E402
from arcface_cakd.tensor_files import write_tensors  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = {
            name: flipped(path, read, args.flips, random.Random(f"{args.seed} {name}"))
            for name, (path, read) in files(Path(folder)).items()
        }
    for name, count in counts.items():
        print(f"{name}: of {args.flips} flips {count}")
    if args.json:
        figures = {"flips": args.flips, "seed": args.seed, "torch": torch.__version__}
        args.json.write_text(json.dumps({**figures, "files": counts}, indent=1) + "\n")


def files(folder: Path) -> dict[str, tuple[Path, Callable[[], object]]]:
    """Each kind of file, and how it is read."""
    torch.manual_seed(0)
    # Small, as each flip reads all of the file.
    network = nn.Sequential(
        nn.Conv2d(3, 16, 7, 8), nn.BatchNorm2d(16), nn.PReLU(16), nn.Flatten(), nn.Linear(3136, 4)
    )
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.randn(4, 3, 112, 112)).square().sum().backward()
    optimizer.step()
    content = {
        "global_step": 1,
        "state_dict_backbone": network.state_dict(),
        "state_optimizer": optimizer.state_dict(),
    }
    write_tensors(folder / "checkpoint_gpu_0.pt", content)
    save_weights(network, folder / "model.pt")
    torch.save(network.state_dict(), folder / "theirs.pt")
    write_bin(folder / "lfw.bin", [jpeg(seed) for seed in range(20)], [True, False] * 5)
    write_identity_records(folder, [[jpeg(5 * i + j) for j in range(5)] for i in range(40)])

    def checkpoint() -> object:
        return read_checkpoint(folder / "checkpoint_gpu_0.pt", "global_step", "is none")

    def digests() -> object:
        damages = BlockDigests(folder / "train.rec").damages()
        if damages:
            raise damages[0]
        return (folder / "train.rec").read_bytes(), (folder / "train.idx").read_bytes()

    def weights(name: str) -> Callable[[], object]:
        return lambda: read_weights(folder / name)

    return {
        "checkpoint": (folder / "checkpoint_gpu_0.pt", checkpoint),
        "model.pt": (folder / "model.pt", weights("model.pt")),
        "weights of torch.save": (folder / "theirs.pt", weights("theirs.pt")),
        ".bin": (folder / "lfw.bin", lambda: load_bin(folder / "lfw.bin")),
        "train.rec": (folder / "train.rec", digests),
        "train.idx": (folder / "train.idx", digests),
    }


def flipped(path: Path, read: Callable[[], object], number: int, rng: random.Random) -> dict:
    """How many flips are seen: refused with an error of ours, of one line. Of the others, how many
    leave what is read as it was, and how many change it unseen.
    """
    whole = path.read_bytes()
    written = read()
    counts: Counter[str] = Counter()
    for _ in range(number):
        bit = rng.randrange(8 * len(whole))
        with open(path, "r+b") as file:
            file.seek(bit // 8)
            file.write(bytes([whole[bit // 8] ^ 1 << bit % 8]))
        try:
            counts["without effect" if equal(read(), written) else "unseen"] += 1
        except ArcfaceCakdError as error:
            counts["seen" if "\n" not in str(error) else "of many lines"] += 1
        with open(path, "r+b") as file:
            file.seek(bit // 8)
            file.write(whole[bit // 8 : bit // 8 + 1])
    read()
    return {"seen": 0, "without effect": 0, "unseen": 0, **counts, "bytes": len(whole)}


def equal(one: object, other: object) -> bool:
    """Whether two contents of a file are the same to the bit, types and order of keys too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and equal(one.numpy(), other.numpy())
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        same_kind = one.dtype == other.dtype and one.shape == other.shape
        return same_kind and one.tobytes() == other.tobytes()
    if isinstance(one, dict) and isinstance(other, dict):
        return equal(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return repr(one) == repr(other)  # which tells 0.0 from -0.0


if __name__ == "__main__":
    main()
