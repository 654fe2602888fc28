"""What published code of losses over feature maps computes: writes feature_losses.json beside this.

    python tests/golden/make_feature_losses.py ATTENTION_TRANSFER REPDISTILLER MDISTILLER \
        FACEX_ZOO REVIEWKD MGD

The arguments are git clones of szagoruyko/attention-transfer, HobbitLong/RepDistiller,
megvii-research/mdistiller, JDAI-CV/FaceX-Zoo, dvlab-research/ReviewKD and yzd-v/MGD. Their code
is imported from a temporary folder and run in float64 on maps that ``inputs`` makes from a seed,
with weights that ``fill`` makes from one; the tests make the same ones. For each case the value,
the norm of the gradient on the student's maps and the first entries of it on the first map are
recorded.
"""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch

GOLDEN = Path(__file__).with_name("feature_losses.json")
KDF = "addition_module/face_lightning/KDF/loss"
SOURCES = {  # repository and the part of it that is run
    "szagoruyko/attention-transfer": ("utils.py",),
    "HobbitLong/RepDistiller": ("distiller_zoo",),
    "megvii-research/mdistiller": ("mdistiller/distillers",),
    "JDAI-CV/FaceX-Zoo": (KDF,),
    "dvlab-research/ReviewKD": ("ImageNet/models",),
    "yzd-v/MGD": ("det/mmdet/distillation/losses", "cls/mmcls/distillation/losses"),
}
BATCH = 3


def inputs(seed, student, teacher):
    """Maps (3, C, H, W), float64, of both sides, for lists of their [C, H, W]."""
    rng = np.random.RandomState(seed)
    return tuple(
        [torch.from_numpy(rng.standard_normal((BATCH, *shape))) for shape in side]
        for side in (student, teacher)
    )


def fill(parameters, seed):
    """Gives parameters, in their order, values that the seed decides."""
    rng = np.random.RandomState(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.from_numpy(0.3 * rng.standard_normal(tuple(parameter.shape))))


def cases(loss):
    """What was recorded of a loss, one dict for each repository and seed."""
    recorded = json.loads(GOLDEN.read_text())["cases"]
    return [case for case in recorded if case["loss"] == loss]


def record(loss, maps):
    """The value of loss() and its gradient on the student's ``maps``."""
    for x in maps:
        x.requires_grad_()
    value = loss()
    gradients = torch.autograd.grad(value, maps)
    return {
        "value": value.item(),
        "gradient_norm": torch.cat([g.flatten() for g in gradients]).norm().item(),
        "gradient": gradients[0].flatten()[:6].tolist(),
    }


def review(module, student, teacher, seed):
    """ReviewKD's fusion of the student's maps by a module's ABF, and its HCL."""
    pairs = list(zip(student, teacher, strict=True))
    widths = [(ours.shape[1], theirs.shape[1]) for ours, theirs in pairs]
    mid = widths[-1][0]
    levels = [
        module.ABF(*(ours, mid, theirs), i < len(widths) - 1).double()
        for i, (ours, theirs) in enumerate(widths)
    ]
    fill([p for level in levels for p in level.parameters()], seed)
    results, left = [], None
    for (ours, theirs), level in zip(pairs[::-1], levels[::-1], strict=True):
        sizes = [ours.shape[2]]
        if "out_shape" in module.ABF.forward.__code__.co_varnames:
            sizes.append(theirs.shape[2])
        out, left = level(ours, left, *sizes)
        results.insert(0, out)
    return getattr(module, "hcl_loss", getattr(module, "hcl", None))(results, teacher)


def vid(module, function, student, teacher, seed):
    """VID with RepDistiller's layers, by its own forward pass or by another's function."""
    (student,), (teacher,) = student, teacher
    loss = module.VIDLoss(student.shape[1], teacher.shape[1], teacher.shape[1]).double()
    fill([*loss.regressor.parameters(), loss.log_scale], seed)
    if function is None:
        return loss(student, teacher)
    return function(loss.regressor, loss.log_scale, student, teacher)


def mgd(kind, student, teacher, seed):
    """MGD with masks and weights of the seed."""
    (student,), (teacher,) = student, teacher
    loss = kind(student.shape[1], teacher.shape[1], "map").double()
    fill(loss.parameters(), seed)
    torch.manual_seed(seed)
    return loss(student, teacher)


def published(folder, clones):
    """(loss, repository, its function of two lists of maps and a seed, shapes), and commits."""
    from make_relational_losses import load, unpack

    roots, commits = {}, {}
    for (name, parts), clone in zip(SOURCES.items(), clones, strict=True):
        roots[name] = Path(folder) / name.replace("/", "_")
        commits[name] = unpack(clone, parts, roots[name])
    at_of, rep, mdi, facex, review_of, mgd_of = roots.values()

    # What their modules import and these losses do not use.
    sys.modules["nested_dict"] = SimpleNamespace(nested_dict=dict)
    zoo = {n: load(rep, f"distiller_zoo/{n}.py") for n in ("FitNet", "AT", "FSP", "VID")}
    mdistiller = {
        n: load(mdi, f"mdistiller/distillers/{n}.py", "published_mdistiller")
        for n in ("AT", "VID", "ReviewKD")
    }
    kdf = {n: load(facex, f"{KDF}/{n}.py") for n in ("fitnet", "fsp")}
    attention = load(at_of, "utils.py")
    package = "published_reviewkd"
    for name in ("resnet", "mobilenet"):
        sys.modules[f"{package}.{name}"] = ModuleType(name)
    reviewkd = load(review_of, "ImageNet/models/reviewkd.py", package)
    masked = {}
    for part in SOURCES["yzd-v/MGD"]:
        package = f"published_{part.split('/')[0]}"
        sys.modules[package] = ModuleType(package)
        registry = SimpleNamespace(register_module=lambda: lambda kind: kind)
        sys.modules[f"{package}.builder"] = SimpleNamespace(DISTILL_LOSSES=registry)
        masked[part] = load(mgd_of, f"{part}/mgd.py", f"{package}.losses")
    detection, classification = masked.values()

    same = [[5, 7, 7]], [[5, 7, 7]]
    wider = [[5, 7, 7]], [[8, 7, 7]]
    finer, coarser = ([[4, 8, 8]], [[6, 4, 4]]), ([[6, 4, 4]], [[4, 8, 8]])
    stages = [[4, 8, 8], [6, 4, 4]], [[5, 8, 8], [3, 8, 8]]
    steps = [[4, 8, 8], [6, 4, 4], [5, 4, 4]], [[4, 6, 6], [6, 6, 6], [5, 2, 2]]
    step = [[4, 8, 8], [6, 4, 4]], [[4, 6, 6], [6, 6, 6]]
    levels = [[4, 12, 12], [6, 6, 6], [5, 3, 3]], [[3, 12, 12], [7, 6, 6], [8, 3, 3]]
    resized = [[4, 12, 12], [6, 6, 6], [5, 3, 3]], [[3, 6, 6], [7, 6, 6], [8, 5, 5]]

    hint, hint_of_kdf = zoo["FitNet"].HintLoss(), kdf["fitnet"].FitNet()
    at, at_of_mdistiller = zoo["AT"].Attention(), mdistiller["AT"].at_loss
    fsp, fsp_of_kdf = zoo["FSP"].FSP(*([(0, c) for c, _, _ in x] for x in steps)), kdf["fsp"].FSP()
    layers, vid_of_mdistiller = zoo["VID"], mdistiller["VID"].vid_loss
    abf_of_mdistiller = mdistiller["ReviewKD"]
    losses = [
        ("fitnet", "HobbitLong/RepDistiller", lambda s, t, _: hint(*s, *t), same),
        ("fitnet", "JDAI-CV/FaceX-Zoo", lambda s, t, _: hint_of_kdf(*s, *t), same),
        ("at", "szagoruyko/attention-transfer", lambda s, t, _: attention.at_loss(*s, *t), wider),
        ("at", "HobbitLong/RepDistiller", lambda s, t, _: sum(at(s, t)), stages),
        ("at", "megvii-research/mdistiller", lambda s, t, _: at_of_mdistiller(s, t, 2), stages),
        ("fsp", "HobbitLong/RepDistiller", lambda s, t, _: sum(fsp(s, t)), steps),
        ("fsp", "JDAI-CV/FaceX-Zoo", lambda s, t, _: fsp_of_kdf(*s, *t), step),
        ("vid", "HobbitLong/RepDistiller", partial(vid, layers, None), finer),
        ("vid", "megvii-research/mdistiller", partial(vid, layers, vid_of_mdistiller), coarser),
        ("reviewkd", "dvlab-research/ReviewKD", partial(review, reviewkd), levels),
        ("reviewkd", "megvii-research/mdistiller", partial(review, abf_of_mdistiller), resized),
        ("mgd", "yzd-v/MGD", partial(mgd, detection.FeatureLoss), wider),
        ("mgd", "yzd-v/MGD", partial(mgd, classification.MGDLoss), same),
    ]
    return losses, commits


def main(clones):
    recipe = "inputs(seed, student, teacher) and fill(parameters, seed) of make_feature_losses.py"
    golden = {"inputs": recipe, "cases": []}
    with tempfile.TemporaryDirectory() as folder:
        losses, commits = published(folder, clones)
        for name, repository, loss, (student, teacher) in losses:
            for seed in (1, 2):
                ours, theirs = inputs(seed, student, teacher)
                found = record(lambda f=loss, s=ours, t=theirs, n=seed: f(s, t, n), ours)
                case = {"loss": name, "repository": repository, "commit": commits[repository]}
                case |= {"seed": seed, "student": student, "teacher": teacher}
                golden["cases"].append(case | found)
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
