"""FLOPs of a training step of each recipe, counted on the meta device.

    python eval/recipe_cost.py                        # all, to eval/results/recipe_cost.json
    python eval/recipe_cost.py ms1mv3_mbf casia_r50   # some, printed only

All are the recipes and the runs in recipes/set_lines.json, each a recipe with other settings.

A step is the forward and the backward pass over the recipe's whole batch, that of all its GPUs,
as one process would do it: the student, the teacher, prompts (the backward pass through the
teacher that they need, and the unprompted forward pass of anchoring), URFM, losses and the
margin softmax over the sampled classes. Counted are products (matrix products, convolutions,
attention), a multiplication and its addition as two, and blocks that checkpointing computes
again as often as they run. What is element by element, the optimiser and the data are not.
torch.utils.flop_counter counts shapes; nothing is computed, no GPU is needed and none is timed.
"""

import argparse
import contextlib
import json
import math
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from arcface_cakd.backbones import FaceBackbone, get_model
from arcface_cakd.config import TrainConfig, load_config
from arcface_cakd.distiller import Distiller
from arcface_cakd.files import write_text
from arcface_cakd.partial_fc import FROM_DATA, CombinedMarginLoss, PartialFC, sharded
from arcface_cakd.resources import recipe_files, set_lines

RESULTS = Path(__file__).parent / "results" / "recipe_cost.json"
DEMO_CLASSES = 300  # the demo's recipes leave the number to the data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes; default: all")
    args = parser.parse_args()
    files, lines = recipe_files(), set_lines()
    for name in args.names:
        if name not in files and name not in lines:
            parser.error(f"no recipe {name}")

    counted: dict[str, int] = {}  # recipes that differ in nothing that counts are counted once
    recipes = {}
    for name in args.names or sorted([*files, *lines]):
        recipe, settings = lines.get(name, (name, ()))
        config = load_config(files[recipe], settings)
        images = config.batch_size * gpus(name)
        key = what_counts(config, images)
        if key not in counted:
            counted[key] = flops(config, images)
        recipes[name] = {"images": images, "flops": counted[key]}
        print(f"{name}: {counted[key] / 1e12:.1f} TFLOP a step of {images} images", flush=True)
    if not args.names:
        report = {
            "command": "python eval/recipe_cost.py",
            "torch": torch.__version__,
            "recipes": recipes,
        }
        write_text(RESULTS, json.dumps(report, indent=2) + "\n")


def gpus(name: str) -> int:
    """How many GPUs a recipe is written for, as its docstring says."""
    return 1 if name.endswith("_onegpu") or name.startswith("demo_") else 8


def what_counts(config: TrainConfig, images: int) -> str:
    cakd = config.cakd
    if cakd is not None:
        cakd = replace(cakd, teacher={"network": cakd.teacher["network"]})
    head = (config.num_classes, config.sample_rate, config.embedding_size, config.freeze_centers)
    return repr((config.network, *head, images, cakd))


def flops(config: TrainConfig, images: int) -> int:
    """FLOPs of a step over that many images."""
    classes = config.num_classes or DEMO_CLASSES
    size = config.embedding_size
    batch = torch.empty(images, 3, 112, 112, device="meta")
    labels = torch.zeros(images, dtype=torch.int64, device="meta")
    model = build(config, classes).train()
    sampled = max(int(classes * config.sample_rate), 1)
    head = PartialFC(CombinedMarginLoss(64.0, 1.0, 0.5, 0.0), size, sampled, seed=0)
    head.to("meta").train()
    head.weight.requires_grad_(not config.freeze_centers)
    formulas = {torch.ops.aten.convolution_backward: convolution_backward}
    # All classes at once: the counter cannot see into the backward pass of blocks, which does the
    # same products.
    together = mock.patch.object(sharded, "MANY_CLASSES", classes)
    with on_meta(), together, FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        given = (batch,)
        if config.cakd is not None and config.cakd.needs_landmarks:
            given += (torch.empty(images, 5, 2, device="meta"),)
        loss = head(model(*given), labels)
        if isinstance(model, Distiller):
            loss = loss + sum(model.terms(labels, head).values())
        loss.backward()
    return counter.get_total_flops()


def convolution_backward(
    grad_shape, x_shape, w_shape, bias, stride, padding, dilation, *rest, out_shape, **kwargs
) -> int:
    """As much as the forward pass for each of the two gradients; torch's own formula counts the
    weight's as if there were no groups, which a MobileFaceNet's convolutions have."""
    _transposed, _output_padding, _groups, wanted = rest
    forward = 2 * math.prod(grad_shape) * math.prod(w_shape[1:])
    return forward * sum(wanted[:2])


def build(config: TrainConfig, classes: int) -> FaceBackbone | Distiller:
    """The model that the recipe trains, on the meta device, with an untrained teacher."""
    student = meta_model(config.network, config.embedding_size)
    if config.cakd is None:
        return student
    cakd = replace(config.cakd, teacher={**config.cakd.teacher, "centers": FROM_DATA})
    teacher = meta_model(cakd.teacher["network"], config.embedding_size)
    model = Distiller(student, teacher, cakd, classes)
    if model.awaits_centers:
        model.take_centers(torch.zeros(classes, config.embedding_size))
    counters = integer_scalars(model)
    model.to("meta")
    for module, name, value in counters:  # what a loss does may depend on them
        module.register_buffer(name, value)
    return model


def meta_model(network: str, embedding_size: int) -> FaceBackbone:
    try:
        with torch.device("meta"):
            return get_model(network, num_features=embedding_size)
    except RuntimeError:  # timm 1.0.9 computes with numbers while it builds
        return get_model(network, num_features=embedding_size).to("meta")


def integer_scalars(model: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    return [
        (module, name, torch.zeros_like(buffer, device="cpu"))
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.dim() == 0 and buffer.dtype == torch.int64
    ]


@contextlib.contextmanager
def on_meta():
    """Meta tensors know no autocast, which changes no count, and not what is nonzero."""
    from torch.fx.experimental import _config

    assumption = "meta_nonzero_assume_all_nonzero"  # not in torch 2.6, where few losses need it
    with (
        mock.patch("torch.autocast", lambda *args, **kwargs: contextlib.nullcontext()),
        _config.patch({assumption: True} if hasattr(_config, assumption) else {}),
    ):
        yield


if __name__ == "__main__":
    main()
