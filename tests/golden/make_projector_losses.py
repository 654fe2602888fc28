"""What published code of distillation through attention projectors computes: writes
projector_losses.json beside this.

    cd tests; python -m golden.make_projector_losses SCALEKD PAT

The arguments are git clones of deep-optimization/ScaleKD and jimmylin0979/PAT, both under
Apache-2.0. Their modules are imported from a temporary folder and run in float64 on maps and with
weights of make_feature_losses.py; they need mmcv-lite, mmengine, timm and einops. Recorded are the
value, the norm of the gradient on the student's maps and its first entries:

* "scalekd": FreqMaskingDistillLossv2 with learned queries and its published weights;
* "pat": RegionAttention, its projectors and hcl_loss, summed over the stages. The encoding, which
  it indexes by the place in the batch, is given to it by the number of the region.
"""

import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from golden.make_feature_losses import BATCH, fill, inputs, record
from golden.make_relational_losses import load, unpack

GOLDEN = Path(__file__).with_name("projector_losses.json")
SOURCES = {  # repository and the part of it that is run
    "deep-optimization/ScaleKD": "mmcls/models/dis_losses",
    "jimmylin0979/PAT": "distillers",
}
WEIGHTS = [0.08, 0.06]  # ScaleKD's, of its configs
SHAPES = {
    "scalekd": (([[5, 7, 7]], [[8, 7, 7]]), ([[4, 4, 4]], [[6, 4, 4]])),
    "pat": (
        ([[3, 7, 7], [4, 8, 8]], [[5, 8, 8], [6, 4, 4]]),
        ([[4, 8, 8], [5, 7, 7], [6, 5, 5]], [[5, 16, 16], [4, 8, 8], [7, 4, 4]]),
    ),
}
HEADS, DIM = 2, 8


def cases(loss):
    """What was recorded of a loss, one dict for each seed and pair of lists of maps."""
    recorded = json.loads(GOLDEN.read_text())["cases"]
    return [case for case in recorded if case["loss"] == loss]


def scalekd(module, student, teacher, seed):
    (student,), (teacher,) = student, teacher
    loss = module.FreqMaskingDistillLossv2(
        "name", True, WEIGHTS, student.shape[1], teacher.shape[1], tuple(teacher.shape[2:]),
        tuple(teacher.shape[2:]), teacher.shape[1], softmax_scale=[5.0, 5.0], num_heads=HEADS,
    )  # fmt: skip
    for number, projector in enumerate((loss.projector_0, loss.projector_1)):
        fill(in_order(projector), seed + number)
    return sum(loss(student, teacher))


def in_order(projector):
    """Its parameters in the order in which ours has them. The two that it has besides change
    nothing: biases before BatchNorm, and of keys."""
    convolution, norm, _ = projector.proj_student
    attention = projector.pos_attention
    return [
        projector.pos_embed,
        projector.query.weight,
        convolution.weight,
        *norm.parameters(),
        *projector.proj_pos.parameters(),
        *attention.q.parameters(),
        attention.k.weight,
        *attention.v.parameters(),
        *attention.proj.parameters(),
        *projector.norm.parameters(),
        *projector.ffn.parameters(),
    ]


def pat(module, student, teacher, seed):
    shapes = [[torch.Size((1, *x.shape[1:])) for x in side] for side in (student, teacher)]
    regions = 16
    attention = module.RegionAttention(*shapes, len(student) * regions, DIM, HEADS)
    aligners = [module.get_projector_module([1, regions, DIM], shape) for shape in shapes[1]]
    weight, bias = torch.empty(3 * DIM, DIM), torch.empty(3 * DIM)  # of queries, keys and values
    before = [*attention.projector_s.parameters(), *attention.norm.parameters()]
    fill([*before, weight, bias, *(p for part in aligners for p in part.parameters())], seed)
    for layer, rows in ((attention.to_q, slice(DIM)), (attention.to_kv, slice(DIM, None))):
        layer.weight.data, layer.bias.data = weight[rows], bias[rows]
    encoding = module.get_positional_encoding(DIM)[: len(student) * regions, 0]
    attention.positional_encodings = encoding.expand(BATCH, -1, -1)
    blended = attention(student, teacher)
    return sum(
        module.hcl_loss(align(x.squeeze(0)), target)
        for align, x, target in zip(aligners, blended, teacher, strict=True)
    )


def published(folder, clones):
    """Their two modules, and the commits."""
    folders, commits = {}, {}
    for (name, part), clone in zip(SOURCES.items(), clones, strict=True):
        folders[name] = Path(folder) / name.replace("/", "-")
        commits[name] = unpack(clone, [part], folders[name])
    # What their modules import of the rest of their packages, and these losses do not use.
    models = SimpleNamespace(register_module=lambda: lambda kind: kind)
    names = "MultiheadAttention", "resize_pos_embed", "to_2tuple", "LayerScale"
    for name in (
        "mmcls",
        "mmcls.registry",
        "mmcls.models",
        "mmcls.models.utils",
        "mmcls.models.utils.helpers",
        "mmcls.models.utils.layer_scale",
        "published_scalekd",
        "published_scalekd.utils",
    ):
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(dict.fromkeys(names), MODELS=models)
    scale, perspective = folders.values()
    return {
        "scalekd": load(
            scale, "mmcls/models/dis_losses/fmdv2.py", "published_scalekd.dis_losses"
        ),
        "pat": load(perspective, "distillers/pat.py", "published_pat"),
    }, commits  # fmt: skip


def main(clones):
    if len(clones) != len(SOURCES):
        sys.exit(__doc__)
    torch.set_default_dtype(torch.float64)
    recipe = "inputs(seed, student, teacher) and fill(parameters, seed) of make_feature_losses.py"
    golden = {"inputs": recipe, "cases": []}
    with tempfile.TemporaryDirectory() as folder:
        modules, commits = published(folder, clones)
        for (name, shapes), repository in zip(SHAPES.items(), SOURCES, strict=True):
            for student, teacher in shapes:
                for seed in (1, 2):
                    ours, theirs = inputs(seed, student, teacher)
                    run = {"scalekd": scalekd, "pat": pat}[name]
                    found = record(
                        lambda f=run, m=modules[name], s=ours, t=theirs, n=seed: f(m, s, t, n), ours
                    )
                    case = {"loss": name, "repository": repository, "commit": commits[repository]}
                    case |= {"seed": seed, "student": student, "teacher": teacher}
                    golden["cases"].append(case | found)
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
