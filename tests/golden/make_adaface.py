"""What published code of AdaFace computes: writes adaface.json beside this.

    cd tests; python -m golden.make_adaface ADAFACE

The argument is a git clone of mk-minchul/AdaFace (MIT). Its head is run in float64 on the three
batches of ``steps`` of make_class_losses.py, made longer by LENGTHS, with the class centres of the
first. Of the last batch the cross-entropy, the norm of its gradient on the embeddings and its first
entries are recorded, and the running statistics.
"""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import torch
from golden.make_class_losses import CLASSES, SCALE, WIDTH, record, steps
from torch.nn import functional as F

GOLDEN = Path(__file__).with_name("adaface.json")
REPOSITORY = "mk-minchul/AdaFace"
LENGTHS = torch.tensor([1.0, 3.0, 10.0, 0.2, 30.0, 5.0], dtype=torch.float64)[:, None]
SETTINGS = ({}, {"t_alpha": 0.5}, {"m": 0.5, "h": 1.5, "t_alpha": 1.0})  # besides the paper's
PAPER = {"m": 0.4, "h": 0.333, "t_alpha": 0.01}


def main(clones):
    if len(clones) != 1:
        sys.exit(__doc__)
    git = ["git", "-C", clones[0]]
    read = {"check": True, "capture_output": True, "text": True}
    commit = subprocess.run([*git, "rev-parse", "HEAD"], **read).stdout.strip()
    scope = {}
    exec(subprocess.run([*git, "show", "HEAD:head.py"], **read).stdout, scope)
    cases = []
    for seed in (1, 2):
        for settings in SETTINGS:
            batches = steps(seed)
            with contextlib.redirect_stdout(io.StringIO()):
                head = scope["AdaFace"](WIDTH, CLASSES, s=SCALE, **PAPER | settings).double()
            head.kernel.data.copy_(batches[0].teacher_centers.T)
            for batch in batches:

                def loss(student, labels=batch.labels, head=head):
                    norms = student.norm(dim=1, keepdim=True)
                    return F.cross_entropy(head(student / norms, norms, labels), labels)

                found = record(loss, LENGTHS * batch.student)
            found["statistics"] = [head.batch_mean.item(), head.batch_std.item()]
            cases.append({"seed": seed, "settings": settings, **found})
    content = {
        "repository": REPOSITORY,
        "commit": commit,
        "inputs": "LENGTHS * student of steps(seed) of make_class_losses.py",
        "cases": cases,
    }
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
