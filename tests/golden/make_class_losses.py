"""What published code of losses over identities computes: writes class_losses.json beside this.

    python tests/golden/make_class_losses.py MDISTILLER REPDISTILLER ADADISTILL OFAKD

The arguments are git clones of megvii-research/mdistiller, HobbitLong/RepDistiller,
fdbtrs/AdaDistill and Hao840/OFAKD. Their code is imported from a temporary folder and run in
float64 on inputs that ``inputs`` makes from a seed; the tests make the same ones. For each case
the value, the norm of the gradient on the student's embeddings and its first entries are
recorded; for AdaDistill, after three steps, its class centres too.
"""

import importlib
import importlib.util
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

GOLDEN = Path(__file__).with_name("class_losses.json")
BATCH, CLASSES, WIDTH, TEACHER_WIDTH, SCALE = 6, 9, 8, 10, 64.0
SOURCES = {  # repository and the part of it that is run
    "megvii-research/mdistiller": "mdistiller",
    "HobbitLong/RepDistiller": "distiller_zoo",
    "fdbtrs/AdaDistill": "utils",
    "Hao840/OFAKD": "distillers",
}


class Inputs(NamedTuple):
    """float64 embeddings of both sides (6, E), their class centres (9, E), labels (6,) without
    repetition."""

    student: Tensor
    teacher: Tensor
    centers: Tensor
    teacher_centers: Tensor
    labels: Tensor


def inputs(seed, teacher_width=TEACHER_WIDTH):
    rng = np.random.RandomState(seed)
    labels = rng.permutation(CLASSES)[:BATCH]
    centers = rng.standard_normal((CLASSES, WIDTH))
    teacher_centers = rng.standard_normal((CLASSES, teacher_width))
    student = 0.7 * centers[labels] + rng.standard_normal((BATCH, WIDTH))
    teacher = teacher_centers[labels] + 0.7 * rng.standard_normal((BATCH, teacher_width))
    made = student, teacher, centers, teacher_centers, labels
    return Inputs(*(torch.from_numpy(array) for array in made))


def steps(seed):
    """Three batches of equal widths around the teacher's centres of the first, the student near
    the teacher."""
    made = [inputs(seed + 100 * number, WIDTH) for number in range(3)]
    for number, given in enumerate(made):
        labels = given.labels
        noise = given.teacher - given.teacher_centers[labels]
        teacher = made[0].teacher_centers[labels] + noise
        student = teacher + 0.7 * (given.student - 0.7 * given.centers[labels])
        made[number] = given._replace(teacher=teacher, student=student)
    return made


def logits(embeddings, centers):
    return SCALE * F.normalize(embeddings) @ F.normalize(centers).T


def cases(loss):
    """What was recorded of a loss, one dict for each repository, seed and setting."""
    recorded = json.loads(GOLDEN.read_text())["cases"]
    return [case for case in recorded if case["loss"] == loss]


def record(loss, student):
    """The value of loss(student) and its gradient."""
    student = student.clone().requires_grad_()
    value = loss(student)
    (gradient,) = torch.autograd.grad(value, student)
    return {
        "value": value.item(),
        "gradient_norm": gradient.norm().item(),
        "gradient": gradient.flatten()[:6].tolist(),
    }


def unpack(clone, part, folder):
    """Copies a part of a clone's HEAD to a folder; the commit."""
    git = ["git", "-C", str(clone)]
    tar = subprocess.run([*git, "archive", "HEAD", part], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as archive:
        archive.extractall(folder, filter="data")
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()


def load(path):
    """A file as a module by itself, without the package around it."""
    spec = importlib.util.spec_from_file_location(f"published_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of_probabilities(folders, seed):
    """Losses between the two sides' logits."""
    importlib.import_module("mdistiller.distillers")  # whose names KD and DKD hide the modules
    kd = sys.modules["mdistiller.distillers.KD"].kd_loss
    dkd = sys.modules["mdistiller.distillers.DKD"].dkd_loss
    ofa = importlib.import_module("distillers.ofa").ofa_loss
    again = load(folders["HobbitLong/RepDistiller"] / "distiller_zoo" / "KD.py").DistillKL
    given = inputs(seed)
    teacher = logits(given.teacher, given.teacher_centers)
    one_hot = F.one_hot(given.labels, CLASSES)

    def case(loss, repository, settings, function):
        value = record(lambda student: function(logits(student, given.centers)), given.student)
        return {"loss": loss, "repository": repository, "settings": settings, **value}

    for t in (4.0, 1.0):
        settings = {"temperature": t}
        yield case("kd", "megvii-research/mdistiller", settings, lambda z, t=t: kd(z, teacher, t))
        yield case("kd", "HobbitLong/RepDistiller", settings, lambda z, t=t: again(t)(z, teacher))
    for alpha, beta, t in ((1.0, 8.0, 4.0), (2.0, 0.5, 8.0)):
        yield case(
            "dkd",
            "megvii-research/mdistiller",
            {"alpha": alpha, "beta": beta, "temperature": t},
            lambda z, a=alpha, b=beta, t=t: dkd(z, teacher, given.labels, a, b, t),
        )
    for eps, t in ((1.0, 1.0), (1.5, 1.0), (1.5, 4.0)):
        yield case(
            "ofa_kd",
            "Hao840/OFAKD",
            {"eps": eps, "temperature": t},
            lambda z, e=eps, t=t: ofa(z, teacher, one_hot, e, t),
        )


def of_margins(folders, seed):
    """AdaDistill and its baselines, margin softmax over the teacher's centres."""
    published = load(folders["fdbtrs/AdaDistill"] / "utils" / "losses.py")
    first = inputs(seed, WIDTH)

    def head(kind, margin):
        module = kind(WIDTH, CLASSES, s=SCALE, m=margin).double()
        module.kernel.data.copy_(first.teacher_centers.T)
        return module

    plain = ("arcdistill", published.ArcFace, 0.5), ("cosdistill", published.CosFace, 0.35)
    for loss, kind, margin in plain:
        module = head(kind, margin)
        value = record(
            lambda student, module=module: F.cross_entropy(
                module(F.normalize(student), first.labels), first.labels
            ),
            first.student,
        )
        yield {"loss": loss, "settings": {"margin": margin}, **value}
    adaptive = ("arc", published.AdaptiveAArcFace, 0.45), ("cos", published.AdaptiveACosFace, 0.35)
    for name, kind, margin in adaptive:
        module = head(kind, margin)
        for batch in steps(seed):
            value = record(
                lambda student, batch=batch, module=module: F.cross_entropy(
                    module(F.normalize(student), F.normalize(batch.teacher), batch.labels)[0],
                    batch.labels,
                ),
                batch.student,
            )
        yield {
            "loss": "adadistill",
            "settings": {"kind": name, "margin": margin},
            **value,
            "centers": module.kernel.data.T.tolist(),
        }


def main(clones):
    if len(clones) != len(SOURCES):
        sys.exit(__doc__)
    recorded = []
    torch.set_default_dtype(torch.float64)  # AdaDistill's margins would be float32
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folders, commits = {}, {}
        for (repository, part), clone in zip(SOURCES.items(), clones, strict=True):
            folders[repository] = Path(temporary) / repository.replace("/", "-")
            commits[repository] = unpack(clone, part, folders[repository])
            sys.path.insert(0, str(folders[repository]))
        for seed in (1, 2):
            for case in of_probabilities(folders, seed):
                commit = commits[case["repository"]]
                recorded.append({**case, "commit": commit, "seed": seed})
            for case in of_margins(folders, seed):
                repository = "fdbtrs/AdaDistill"
                source = {"repository": repository, "commit": commits[repository]}
                recorded.append({**case, **source, "seed": seed})
    content = {"inputs": "inputs(seed) and steps(seed) of make_class_losses.py", "cases": recorded}
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
