"""recipes/README.md says of each recipe and ablation what is so: its steps and its FLOPs."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from helpers.recipes import RECIPES, RUNS, gpus, loaded, on_meta

from arcface_cakd.cli import _parser
from arcface_cakd.resources import recipe_files, resource_dir, set_lines

README = (resource_dir("recipes") / "README.md").read_text(encoding="utf-8")
BASELINE = "ms1mv3_mbf_cakd_swin_s"
WITH_PROMPTS = f"{BASELINE}_apt"
ABLATIONS = [name for name in set_lines() if name.startswith(f"{BASELINE}_")]

cost_script = Path(__file__).parents[2] / "eval" / "recipe_cost.py"
needs_checkout = pytest.mark.skipif(not cost_script.is_file(), reason="no eval/: no checkout")


@pytest.fixture(scope="module")
def costs():
    path = cost_script.parent / "results" / "recipe_cost.json"
    return json.loads(path.read_text(encoding="utf-8"))["recipes"]


def row_of(name: str) -> list[str]:
    """A recipe's row; an ablation that is a line of settings has one by what it changes."""
    if name in ABLATIONS:
        name = name.removeprefix(f"{BASELINE}_")
    (row,) = re.findall(rf"^\| `{name}` \|.*", README, flags=re.M)
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_readme_has_every_recipe_once_in_the_section_of_its_folder():
    rows = {}
    for section in README.split("\n## ")[1:]:
        folder, *lines = section.splitlines()
        for name in re.findall(r"^\| `([a-z0-9_]+)` \|", "\n".join(lines), flags=re.M):
            assert name not in rows
            rows[name] = folder
    for name in ABLATIONS:
        assert rows.pop(name.removeprefix(f"{BASELINE}_")) == "ablations"
    assert rows == {name: file.parent.name for name, file in recipe_files().items()}


def test_it_says_how_to_run_before_it_lists():
    headings = re.findall(r"^## (.*)", README, flags=re.M)
    assert headings[0] == "Run"
    assert README.index("arcface-cakd train") < README.index("\n|")


@pytest.mark.parametrize("name", [*RECIPES, *ABLATIONS])
def test_it_counts_the_steps(name):
    config = loaded(name)
    images = config.num_image or 300 * 12  # the demo's
    batch = gpus(name) * config.batch_size
    steps = f"{images // batch * config.num_epoch:,} x {batch}"
    folder = "ablations" if name in ABLATIONS else recipe_files()[name].parent.name
    if folder in ("losses", "ablations"):
        assert f"all of `losses` and `ablations` take {steps}" in README
        assert len(row_of(name)) == 4
    else:
        assert row_of(name)[-2] == steps and len(row_of(name)) == 5
    for link in re.findall(r"`([a-z0-9_]+)`", " ".join(row_of(name)[1:])):
        assert link in RECIPES


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablations_row_has_its_settings(name):
    recipe, settings = set_lines()[name]
    _, shown, hypothesis, _ = row_of(name)
    assert shown == f"`{' '.join(settings[:-1])}`"
    above = README[: README.index(f"\n| `{name.removeprefix(f'{BASELINE}_')}` |")]
    assert re.findall(r"arcface-cakd train (\S+) --set\s+SETTINGS", above)[-1] == recipe
    assert recipe in (BASELINE, WITH_PROMPTS)
    assert settings[-1] == f"output=work_dirs/{name}"
    assert re.match("worse|no worse|better|no better", hypothesis)
    number = re.search(r"(?:prompts|centers)(\d+)$", name)
    assert number is None or shown.endswith(f"={number[1]}`")


def test_its_lines_for_other_sets_are_those_that_the_names_give():
    lines = re.findall(
        r"^arcface-cakd (train \S+ --set .*output=work_dirs/(\S+))$", README, flags=re.M
    )
    assert len(lines) == 4
    for line, name in lines:
        given = _parser().parse_args(shlex.split(line))
        assert (given.config, tuple(given.set)) == set_lines()[name]


@pytest.mark.parametrize("name", RECIPES)
def test_its_row_says_what_is_compared(name):
    _, hypothesis, differs, *_ = row_of(name)
    cakd = loaded(name).cakd
    assert hypothesis and differs
    if cakd is None:
        student = re.search("_(mbf|r18|r50|student)$", name)
        assert (student is not None) == hypothesis.startswith("none: the baseline of")
    elif re.search(r"_cakd_(swin_s|vit_s|vit_b)(_onegpu)?$", name):
        _, taught, _ = cakd.teacher["weights"].split("/")
        baseline = re.sub(r"_cakd_[a-z]+_[a-z]", "", name)
        assert differs == f"teacher `{taught}`" and f"beats `{baseline}`" in hypothesis
    elif cakd.teacher["weights"].startswith("hf:"):
        assert differs.startswith("teacher ") and "released" in differs
        assert re.match(r"beats `ms1mv3_mbf_cakd_\w+`: ", hypothesis)
    elif "_cakd_swin_s_" in name:
        assert re.match("worse|no worse|better|no better", hypothesis)
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
    assert list(costs) == RUNS
    for name, cost in costs.items():
        assert cost["images"] == gpus(name) * loaded(name).batch_size
    for name in (*RECIPES, *ABLATIONS):
        cost = costs[name]
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
