"""What published code of cross-architecture distillation by projectors computes: writes
crossarch_kd_losses.json beside this.

    cd tests; python -m golden.make_crossarch_kd_losses CROSSARCH_KD

The argument is a git clone of yufanLIU/CrossArch_KD, the code of Liu et al. (ACCV 2022). Its two
projectors, ``Attention`` and ``GLProj`` of CAKD/cakd_modified_files/resnet.py, are run as they are
at HEAD, in float64, on maps and with weights of make_feature_losses.py; its file needs einops.
For each case the value, the norm of the gradient on the student's map and its first entries are
recorded:

* "linear": the mean square of GLProj(F_S) - F_T;
* "attention": of what one head of Attention makes of F_S and of F_T, each with its own weights;
* "products": likewise of its V V^T / sqrt(d).
"""

import ast
import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from unittest import mock

import torch
from golden.make_feature_losses import fill, inputs, record
from torch import nn
from torch.nn import functional as F

GOLDEN = Path(__file__).with_name("crossarch_kd_losses.json")
REPOSITORY = "yufanLIU/CrossArch_KD"
PROJECTORS = "CAKD/cakd_modified_files/resnet.py"


def cases(loss):
    """What was recorded of a part of the loss, one dict for each seed and pair of maps."""
    recorded = json.loads(GOLDEN.read_text())["cases"]
    return [case for case in recorded if case["loss"] == loss]


def tokens(x):
    """(B, N, C) of a map (B, C, H, W)."""
    return x.flatten(2).transpose(1, 2)


def published(git):
    """The two projectors' classes."""
    from einops import rearrange

    source = subprocess.run(
        [*git, "show", f"HEAD:{PROJECTORS}"], check=True, capture_output=True, text=True
    ).stdout

    def is_wanted(node):
        if isinstance(node, ast.Assign):  # the neighbourhoods
            return node.targets[0].id.startswith("idx_")
        return getattr(node, "name", None) in ("Attention", "GLProj")

    body = [node for node in ast.parse(source).body if is_wanted(node)]
    scope = {"torch": torch, "nn": nn, "OrderedDict": OrderedDict, "rearrange": rearrange}
    exec(compile(ast.Module(body, type_ignores=[]), PROJECTORS, "exec"), scope)
    return scope["Attention"], scope["GLProj"]


def linear(kind, student, teacher, seed):
    module = kind(student.shape[1], teacher.shape[1], teacher.shape[2] * teacher.shape[3]).double()
    fill(module.parameters(), seed)
    with mock.patch.object(torch.Tensor, "to", lambda tensor, *_: tensor.double()):  # "cuda"
        projected = module(tokens(student))
    return F.mse_loss(projected, tokens(teacher))


def attention(kind, place, student, teacher, seed):
    outputs = []
    for number, x in enumerate((student, teacher)):
        module = kind(x.shape[1], heads=1, dim_head=x.shape[1]).double()
        fill(module.to_qkv.parameters(), seed + number)
        outputs.append(module(tokens(x))[place])
    return F.mse_loss(*outputs)


def main(clones):
    if len(clones) != 1:
        sys.exit(__doc__)
    git = ["git", "-C", clones[0]]
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    kind, linear_kind = published(git)
    losses = [
        ("linear", lambda s, t, n: linear(linear_kind, s, t, n), [3, 7, 7], [4, 7, 7]),
        ("linear", lambda s, t, n: linear(linear_kind, s, t, n), [3, 14, 14], [4, 14, 14]),
        ("attention", lambda s, t, n: attention(kind, 0, s, t, n), [4, 3, 3], [4, 3, 3]),
        ("products", lambda s, t, n: attention(kind, 2, s, t, n), [4, 3, 3], [4, 3, 3]),
    ]
    golden = {
        "repository": REPOSITORY,
        "commit": head.stdout.strip(),
        "inputs": "inputs(seed, student, teacher) and fill(parameters, seed) of "
        "make_feature_losses.py",
        "cases": [],
    }
    for name, loss, student, teacher in losses:
        for seed in (1, 2):
            (ours,), (theirs,) = inputs(seed, [student], [teacher])
            found = record(lambda f=loss, s=ours, t=theirs, n=seed: f(s, t, n), [ours])
            case = {"loss": name, "seed": seed, "student": student, "teacher": teacher}
            golden["cases"].append(case | found)
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
