"""What published code of relational losses computes: writes relational_losses.json beside this.

    python tests/golden/make_relational_losses.py REPDISTILLER MDISTILLER TFACE FACEX_ZOO

The arguments are git clones of HobbitLong/RepDistiller, megvii-research/mdistiller, Tencent/TFace
and JDAI-CV/FaceX-Zoo. Their code is imported from a temporary folder and run in float64 on inputs
that ``inputs`` makes from a seed; the tests make the same ones. For each case the value, the norm
of the gradient on the student's embeddings and its first entries are recorded.
"""

import importlib.util
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

GOLDEN = Path(__file__).with_name("relational_losses.json")
BATCH, WIDTH, TEACHER_WIDTH, QUEUE, DIM = 12, 16, 20, 9, 8
KDF = "addition_module/face_lightning/KDF/loss"
EKD = "recognition/tasks/ekd/distillation"
SOURCES = {  # repository and the part of it that is run
    "HobbitLong/RepDistiller": ("distiller_zoo", "crd"),
    "megvii-research/mdistiller": ("mdistiller/distillers",),
    "Tencent/TFace": (EKD,),
    "JDAI-CV/FaceX-Zoo": (KDF,),
}


def inputs(seed, teacher_width=WIDTH):
    """Embeddings (12, 16) of a student and (12, teacher_width) of its teacher, related to each
    other, float64, and labels (12,) of four identities."""
    rng = np.random.RandomState(seed)
    labels = np.arange(BATCH) % 4
    student = rng.standard_normal((4, WIDTH))[labels] + rng.standard_normal((BATCH, WIDTH))
    mixed = student @ rng.standard_normal((WIDTH, teacher_width)) / 4
    teacher = mixed + 0.5 * rng.standard_normal((BATCH, teacher_width))
    return torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(labels)


def memory(seed):
    """What CRD is run on: unit vectors (12, 8) of both sides and (9, 8) of each side's queue."""
    rng = np.random.RandomState(seed)
    shapes = (BATCH, DIM), (BATCH, DIM), (QUEUE, DIM), (QUEUE, DIM)
    drawn = (torch.from_numpy(rng.standard_normal(shape)) for shape in shapes)
    return [torch.nn.functional.normalize(x, dim=1) for x in drawn]


def cases(loss):
    """What was recorded of a loss, one dict for each repository and seed."""
    recorded = json.loads(GOLDEN.read_text())["cases"]
    return [case for case in recorded if case["loss"] == loss]


def record(loss, student):
    """The value of loss() and its gradient on ``student``."""
    student.requires_grad_()
    value = loss()
    (gradient,) = torch.autograd.grad(value.sum(), student)
    return {
        "value": value.item(),
        "gradient_norm": gradient.norm().item(),
        "gradient": gradient.flatten()[:6].tolist(),
    }


def unpack(clone, parts, folder):
    """Copies parts of a clone's HEAD to a folder; the commit."""
    git = ["git", "-C", str(clone)]
    tar = subprocess.run([*git, "archive", "HEAD", *parts], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as archive:
        archive.extractall(folder, filter="data")
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()


def load(folder, file, package=None):
    """A module from a file, under a package where it imports its neighbours."""
    path = folder / file
    name = path.stem
    if package is not None:
        name = f"{package}.{name}"
        parent = importlib.util.module_from_spec(
            importlib.util.spec_from_loader(package, loader=None, is_package=True)
        )
        parent.__path__ = [str(path.parent)]
        sys.modules[package] = parent
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def crd(criterion, seed):
    """RepDistiller's CRD where its memory holds the batch first, then the queue."""
    torch.Tensor.cuda = lambda self, *_: self  # it draws negatives on a GPU; here they are given
    student, teacher, student_queue, teacher_queue = memory(seed)
    total = BATCH + QUEUE
    options = SimpleNamespace(
        s_dim=DIM, t_dim=DIM, feat_dim=DIM, n_data=total, nce_k=total - 1, nce_t=0.07, nce_m=0.5
    )
    loss = criterion.CRDLoss(options).double()
    for embed in (loss.embed_s, loss.embed_t):
        embed.linear.weight.data = torch.eye(DIM, dtype=torch.float64)
        embed.linear.bias.data.zero_()
    loss.contrast.memory_v1.copy_(torch.cat([student, student_queue]))
    loss.contrast.memory_v2.copy_(torch.cat([teacher, teacher_queue]))
    own = torch.arange(BATCH)
    others = [[i, *(j for j in range(total) if j != i)] for i in range(BATCH)]
    return record(lambda: loss(student, teacher, own, torch.tensor(others)), student)


def ekd(module, seeds):
    """TFace's EKD over several batches, whose thresholds move."""
    loss = module.EKD().double()
    steps = []
    for seed in seeds:
        student, teacher, labels = inputs(seed, TEACHER_WIDTH)
        found = record(lambda s=student, t=teacher, y=labels: loss(s, t, y), student)
        found["thresholds"] = torch.stack([loss.s_anchor, loss.t_anchor]).detach().tolist()
        steps.append(found)
    return {"batches": steps}


def main(clones):
    golden = {"inputs": "inputs(seed, teacher_width) of make_relational_losses.py", "cases": []}
    with tempfile.TemporaryDirectory() as folder:
        roots, commits = {}, {}
        for (name, parts), clone in zip(SOURCES.items(), clones, strict=True):
            roots[name] = Path(folder) / name.replace("/", "_")
            commits[name] = unpack(clone, parts, roots[name])
        rep, mdi, tface, facex = roots.values()
        zoo = {n: load(rep, f"distiller_zoo/{n}.py") for n in ("RKD", "SP", "PKT")}
        mdistiller = {
            n: load(mdi, f"mdistiller/distillers/{n}.py", "published_mdistiller")
            for n in ("RKD", "SP", "PKT")
        }
        ours = {n: load(tface, f"{EKD}/{n}.py") for n in ("rkd", "cc", "fitnet", "ekd")}
        kdf = {n: load(facex, f"{KDF}/{n}.py") for n in ("pkt", "snn_mimic")}
        criterion = load(rep, "crd/criterion.py", "published_crd")
        sp, sp_mdistiller = zoo["SP"].Similarity(), mdistiller["SP"].similarity_loss
        published = [
            ("rkd", "HobbitLong/RepDistiller", zoo["RKD"].RKDLoss(), TEACHER_WIDTH),
            ("rkd", "megvii-research/mdistiller", mdistiller["RKD"].rkd_loss, TEACHER_WIDTH),
            ("rkd", "Tencent/TFace", ours["rkd"].RKDLoss(), TEACHER_WIDTH),
            ("sp", "HobbitLong/RepDistiller", lambda s, t: sp([s], [t])[0], TEACHER_WIDTH),
            ("sp", "megvii-research/mdistiller", sp_mdistiller, TEACHER_WIDTH),
            ("pkt", "HobbitLong/RepDistiller", zoo["PKT"].PKT(), TEACHER_WIDTH),
            ("pkt", "megvii-research/mdistiller", mdistiller["PKT"].pkt_loss, TEACHER_WIDTH),
            ("pkt", "JDAI-CV/FaceX-Zoo", kdf["pkt"].PKTCosSim(), TEACHER_WIDTH),
            ("cckd", "Tencent/TFace", ours["cc"].CC(), TEACHER_WIDTH),
            ("embedding_l2", "JDAI-CV/FaceX-Zoo", kdf["snn_mimic"].SNN_MIMIC(), WIDTH),
            ("embedding_l2", "Tencent/TFace", ours["fitnet"].HintLoss(), WIDTH),
        ]
        for name, repository, loss, teacher_width in published:
            for seed in (1, 2):
                student, teacher, _ = inputs(seed, teacher_width)
                found = record(lambda f=loss, s=student, t=teacher: f(s, t), student)
                case = {"loss": name, "repository": repository, "commit": commits[repository]}
                case |= {"seed": seed, "teacher_width": teacher_width}
                golden["cases"].append(case | found)
        for name, repository, case in (
            ("ekd", "Tencent/TFace", {"seeds": [1, 2, 3], **ekd(ours["ekd"], (1, 2, 3))}),
            ("crd", "HobbitLong/RepDistiller", {"seed": 1, **crd(criterion, 1)}),
        ):
            source = {"loss": name, "repository": repository, "commit": commits[repository]}
            golden["cases"].append(source | case)
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
