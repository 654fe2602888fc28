"""recipes/README.md says of each recipe what is so: its steps and its FLOPs."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from helpers.recipes import RECIPES, gpus, loaded, on_meta

from arcface_cakd.resources import resource_dir

README = (resource_dir("recipes") / "README.md").read_text(encoding="utf-8")

cost_script = Path(__file__).parents[2] / "eval" / "recipe_cost.py"
needs_checkout = pytest.mark.skipif(not cost_script.is_file(), reason="no eval/: no checkout")


@pytest.fixture(scope="module")
def costs():
    path = cost_script.parent / "results" / "recipe_cost.json"
    return json.loads(path.read_text(encoding="utf-8"))["recipes"]


def row_of(name: str) -> list[str]:
    (row,) = re.findall(rf"^\| `{name}` \|.*", README, flags=re.M)
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_readme_has_every_recipe_once_and_no_other():
    named = re.findall(r"^\| `([a-z0-9_]+)` \|", README, flags=re.M)
    assert sorted(named) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_its_row_counts_the_steps(name):
    config = loaded(name)
    images = config.num_image or 300 * 12  # the demo's
    batch = gpus(name) * config.batch_size
    assert row_of(name)[-2] == f"{images // batch * config.num_epoch:,} x {batch}"
    for link in re.findall(r"`([a-z0-9_]+)`", " ".join(row_of(name)[1:-2])):
        assert link in RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_its_row_says_what_is_compared(name):
    _, hypothesis, differs, _, _ = row_of(name)
    cakd = loaded(name).cakd
    assert hypothesis and differs
    if cakd is None:
        student = re.search("_(mbf|r18|r50|student)$", name)
        assert (student is not None) == hypothesis.startswith("none: the baseline of")
    elif re.search(r"_cakd_(swin_s|vit_s|vit_b)(_onegpu)?$", name):
        _, taught, _ = cakd.teacher["weights"].split("/")
        baseline = re.sub(r"_cakd_[a-z]+_[a-z]", "", name)
        assert differs == f"teacher `{taught}`" and f"beats `{baseline}`" in hypothesis
    elif "_cakd_swin_s_" in name:
        assert re.match("worse|no worse|better|no better", hypothesis)
        number = re.search(r"(?:prompts|centers)(\d+)$", name)
        assert number is None or re.match(rf"{number[1]} (prompt|centre)", differs)
    elif not name.startswith("demo_"):
        (entry,) = cakd.losses
        alone = cakd.margin_weight == 0
        assert alone == ("no margin softmax of its own" in differs)
        weight = re.search(r"weight ([\d.]+)", differs)
        assert weight is None or float(weight[1]) == entry.weight
        assert weight is not None or entry.weight == 1
        assert ("warm-up" in differs) == (entry.schedule is not None)


@needs_checkout
def test_the_readmes_flops_are_those_counted(costs):
    assert list(costs) == RECIPES
    for name, cost in costs.items():
        assert cost["images"] == gpus(name) * loaded(name).batch_size
        assert row_of(name)[-1] == f"{cost['flops'] / 1e12:.2f}"


@needs_checkout
def test_flops_by_hand(costs):
    """A plain student: three times the products of a forward pass, but for the images'
    gradient, and those of the margin softmax."""
    student, products = on_meta("mbf", 512), {}

    def note(layer, inputs, output):
        if isinstance(layer, torch.nn.Linear):
            products[layer] = layer.weight.numel()
        elif isinstance(layer, torch.nn.Conv2d):
            products[layer] = layer.weight.numel() * output.shape[-1] * output.shape[-2]

    handles = [layer.register_forward_hook(note) for layer in student.modules()]
    student.eval()(torch.empty(1, 3, 112, 112, device="meta"))
    for handle in handles:
        handle.remove()
    forward = 2 * sum(products.values())
    first = 2 * next(iter(products.values()))
    softmax = 3 * 2 * 512 * 93431
    expected = 1024 * (3 * forward - first + softmax)
    assert costs["ms1mv3_mbf"]["flops"] == pytest.approx(expected, rel=1e-3)


@needs_checkout
@pytest.mark.parametrize(
    "name", ["ms1mv3_mbf_cakd_swin_s", "casia_vit_b", "ms1mv3_mbf_reviewkd_swin_s"]
)
def test_flops_are_counted_as_they_were(name, costs):
    spec = importlib.util.spec_from_file_location("recipe_cost", cost_script)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    counted = script.flops(loaded(name), costs[name]["images"])
    assert counted == pytest.approx(costs[name]["flops"], rel=0.02)  # torch's formulas change
