"""What published code of three face distillation losses computes: writes
margindistillation_losses.json beside this.

    python tests/golden/make_margindistillation_losses.py MARGINDISTILLATION

The argument is a git clone of david-svitov/margindistillation, whose train/train.py builds
MarginDistillation, ShrinkTeaNet's angular distillation and triplet distillation as MXNet symbols:
its ``get_symbol`` and its train/config.py are run as they are at HEAD, on embeddings in the place
of a network's output. It needs MXNet (1.9.1, numpy 1.23.5, Python 3.8 or 3.9) and no torch.

All runs in float64, for which ``one_hot`` alone is told its type; the cross-entropy is formed of
the softmax that is trained on, as the one logged beside it is for float32 alone. Recorded are the
value, the norm of the gradient on the student's embeddings and its first entries, on inputs that
``inputs`` makes from a seed; the tests make the same ones. The triplets that the published code
is given are all those of the batch, each in its place in the three parts of its batch.
"""

import ast
import itertools
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("margindistillation_losses.json")
REPOSITORY = "david-svitov/margindistillation"
BATCH, CLASSES, WIDTH = 6, 9, 8


def inputs(seed):
    """Embeddings of student and teacher (6, 8), class centres (9, 8), labels (6,) and, for
    triplets, the identities (6,) of a batch that holds some of them again; float64 and int64.

    The teacher is on the side of its centres. Where it is not the published margins leave their
    range, which ours do not.
    """
    rng = np.random.RandomState(seed)
    labels = rng.permutation(CLASSES)[:BATCH]
    centers = rng.standard_normal((CLASSES, WIDTH))
    teacher = centers[labels] + 0.5 * rng.standard_normal((BATCH, WIDTH))
    student = 0.7 * teacher + rng.standard_normal((BATCH, WIDTH))
    identities = rng.permutation([0, 0, 0, 1, 1, 2])
    return {
        "student": student,
        "teacher": teacher,
        "centers": centers,
        "labels": labels,
        "identities": identities,
    }


def cases(loss):
    """What was recorded of a loss, one dict for each seed and setting."""
    recorded = json.loads(GOLDEN.read_text())["cases"]
    return [case for case in recorded if case["loss"] == loss]


def triplets(identities):
    """(3, T) of anchors, positives and negatives: all that there are."""
    places = itertools.product(range(len(identities)), repeat=3)
    same = identities[:, None] == identities
    return np.array([(a, p, n) for a, p, n in places if a != p and same[a, p] and not same[a, n]]).T


class Published:
    """train/train.py's ``get_symbol``, for one loss at a time."""

    def __init__(self, clone):
        self.git = ["git", "-C", str(clone)]
        self.commit = self._run("rev-parse", "HEAD").strip()
        body = ast.parse(self._run("show", "HEAD:train/train.py")).body
        named = [node for node in body if getattr(node, "name", None) == "get_symbol"]
        self.code = compile(ast.Module(named, type_ignores=[]), "train.py", "exec")

    def _run(self, *arguments):
        return subprocess.run(
            [*self.git, *arguments], check=True, capture_output=True, text=True
        ).stdout

    def symbol(self, loss, batch, **settings):
        """The symbol of a loss over ``data`` (batch, 8) and ``softmax_label``."""
        import mxnet as mx

        settings_module = {}
        exec(self._run("show", "HEAD:train/config.py"), settings_module)
        settings_module["generate_config"]("y1", "emore_soft", loss)
        config = settings_module["config"]
        config.update(num_classes=CLASSES, emb_size=WIDTH, per_batch_size=batch)
        config.update(ce_loss=False, **settings)
        network = types.SimpleNamespace(get_symbol=lambda: mx.sym.Variable("data"))
        symbols = _InFloat64(mx.sym)
        scope = {
            "mx": types.SimpleNamespace(sym=symbols, symbol=symbols, init=mx.init),
            "config": config,
            "args": config,
            config.net_name: network,
        }
        exec(self.code, scope)
        return scope["get_symbol"](config)


class _InFloat64:
    """mx.sym, whose one_hot would be float32."""

    def __init__(self, symbols):
        self._symbols = symbols

    def __getattr__(self, name):
        return getattr(self._symbols, name)

    def one_hot(self, *arguments, **settings):
        return self._symbols.one_hot(*arguments, dtype="float64", **settings)


def run(symbol, data, labels, centers=None):
    """The symbol's outputs and the gradient on ``data`` (N, 8)."""
    import mxnet as mx

    given = {"data": data, "softmax_label": labels, "fc7_weight": centers}
    given = {name: given[name] for name in symbol.list_arguments()}
    executor = symbol.bind(
        mx.cpu(),
        {name: mx.nd.array(array, dtype="float64") for name, array in given.items()},
        {"data": mx.nd.zeros(data.shape, dtype="float64")},
        {name: "write" if name == "data" else "null" for name in given},
    )
    outputs = executor.forward(is_train=True)
    executor.backward([mx.nd.ones(output.shape, dtype=output.dtype) for output in outputs])
    return [output.asnumpy() for output in outputs], executor.grad_dict["data"].asnumpy()


def record(value, gradient):
    return {
        "value": float(value),
        "gradient_norm": float(np.linalg.norm(gradient)),
        "gradient": gradient.ravel()[:6].tolist(),
    }


def computed(published, seed):
    """The cases of a seed."""
    given = inputs(seed)
    student, teacher = given["student"], given["teacher"]
    labelled = np.column_stack([teacher, given["labels"]])

    for settings in ({}, {"loss_s": 20.0, "Mmin": 0.1, "Mmax": 0.7}):
        symbol = published.symbol("margin_distillation", BATCH, **settings)
        outputs, gradient = run(symbol, student, labelled, given["centers"])
        own = outputs[-1][np.arange(BATCH), given["labels"]]
        value = record(-np.log(own).mean(), gradient)
        yield {"loss": "margin_distillation", "settings": settings, **value}

    symbol = published.symbol("angular_distillation", BATCH).get_internals()["coss_loss_output"]
    outputs, gradient = run(symbol, student, labelled)
    yield {"loss": "angular_distillation", "settings": {}, **record(outputs[0].item(), gradient)}

    places = triplets(given["identities"]).ravel()
    for loss in ("triplet_distillation_L2", "triplet_distillation_cos"):
        for settings in ({}, {"Mmin": 0.0, "Mmax": 1.5}):
            symbol = published.symbol(loss, len(places), **settings)
            outputs, gradient = run(symbol, student[places], teacher[places])
            of_images = np.zeros_like(student)
            np.add.at(of_images, places, gradient)
            yield {"loss": loss, "settings": settings, **record(outputs[-1].item(), of_images)}


def main(arguments):
    if len(arguments) != 1:
        sys.exit(__doc__)
    published = Published(arguments[0])
    recorded = [{**case, "seed": seed} for seed in (1, 2) for case in computed(published, seed)]
    content = {
        "repository": REPOSITORY,
        "commit": published.commit,
        "inputs": "inputs(seed) of make_margindistillation_losses.py",
        "cases": recorded,
    }
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
