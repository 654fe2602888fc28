"""Recipes: that both loops take them, and their flat copies for arcface_torch."""

import ast
import functools
import os
import pickle
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from arcface_cakd.backbones import get_model
from arcface_cakd.cli import _parser
from arcface_cakd.config import load_config
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.patching.recipes import HOST_RECIPES, render
from arcface_cakd.resources import find_recipe, recipe_files, resource_dir, set_lines

RECIPES = list(recipe_files())
README = (resource_dir("recipes") / "README.md").read_text(encoding="utf-8")
# What arcface_torch reads of a config that trains on records: its base.py's keys, and the data's.
HOST_KEYS = """
    margin_list network resume save_all_states output embedding_size sample_rate fp16 batch_size
    interclass_filtering_threshold optimizer lr momentum weight_decay verbose frequent dali
    dali_aug gradient_acc seed num_workers rec num_classes num_image num_epoch warmup_epoch
    val_targets
"""


def run_by_itself(path):
    """The recipe's ``config``, by a fresh Python that finds every other recipe and piece."""
    recipes = resource_dir("recipes")
    found = [str(folder) for folder in (recipes, *recipes.iterdir()) if folder.is_dir()]
    code = (
        "import pickle, runpy, sys;"
        "sys.stdout.buffer.write(pickle.dumps(runpy.run_path(sys.argv[1])['config']))"
    )
    command = [sys.executable, "-c", code, path.name]
    done = subprocess.run(
        command,
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(found)},
        capture_output=True,
    )
    return pickle.loads(done.stdout)


def executed(text):
    names = {}
    exec(compile(text, "rendered", "exec"), names)
    return names["config"]


def kinds(value):
    """The value as nested tuples that also tell types and order."""
    if isinstance(value, dict):
        return type(value), [(k, kinds(v)) for k, v in dict.items(value)]
    if isinstance(value, list | tuple):
        return type(value), [kinds(v) for v in value]
    return type(value), value


@functools.cache
def on_meta(network):
    try:
        with torch.device("meta"):
            return get_model(network, num_features=64)
    except RuntimeError:  # timm 1.0.9 computes with numbers while it builds
        return get_model(network, num_features=64).to("meta")


@pytest.mark.parametrize("name", HOST_RECIPES)
class TestShipped:
    def test_the_built_in_loop_takes_it(self, name):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            config = load_config(recipe_files()[name])
        assert config.output == f"work_dirs/{name}" and config.save_all_states
        assert (config.num_classes, config.num_image) == (93431, 5179510)
        networks = [config.network]
        if config.cakd is not None:
            networks.append(config.cakd.teacher["network"])
            trained = Path(config.cakd.teacher["weights"])
            assert trained.name == "model.pt" and trained.parent.name in HOST_RECIPES
            assert load_config(recipe_files()[trained.parent.name]).cakd is None
        for network in networks:
            assert on_meta(network).embedding_size == 64


@functools.cache
def rendered(name):
    return render(name)


def test_all_are_formatted(tmp_path):
    ruff = shutil.which("ruff") or shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("ruff is not installed")
    for name in RECIPES:
        (tmp_path / f"{name}.py").write_text(rendered(name))
    command = [ruff, "format", "--line-length", "100", "--diff", "--isolated", str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == ""


@pytest.mark.parametrize("name", RECIPES)
def test_the_flat_copy_says_the_same(name, monkeypatch, tmp_path):
    path = recipe_files()[name]
    monkeypatch.chdir(tmp_path)
    text = rendered(name)
    assert kinds(executed(text)) == kinds(run_by_itself(path))
    if not name.startswith("demo_"):
        ours = {"cakd", "init_centers", "freeze_centers"}  # that the hooks read
        assert set(executed(text)) - ours <= {*HOST_KEYS.split()}  # arcface_torch knows them
    assert render(name) == text
    assert text.startswith(path.read_text().split('"""\n')[0])  # the docstring, as it is
    (imported,) = (
        n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)
    )
    assert ast.unparse(imported) == "from easydict import EasyDict as edict"


def test_the_recipes_for_a_host_are_shipped():
    assert set(HOST_RECIPES) <= set(RECIPES)


@pytest.fixture
def write(tmp_path):
    def write(body, head=""):
        path = tmp_path / "mine.py"
        path.write_text(
            f"{head}from easydict import EasyDict as edict\nconfig = edict(rec='a')\n{body}\n",
            encoding="utf-8",
        )
        return path

    return write


AWKWARD = """
config.quotes = ["it's", 'say "x"', '''it's "x"''', "back\\\\slash", "tab\\t", "é", ""]
config.numbers = (1, 1.0, -2.5e-7, 1e300, True, False, None)
config.one = (0.5,)
config.empty = [[], (), edict(), ""]
config.deep = [[{"a": 1, 2: (3,)}, edict(b={"c": [edict({"d": 1})]})]]
config.odd = edict({"two words": 1, "class": 2, "fine": edict(items=1)})
config.long = [edict(name="x" * 30, numbers=list(range(40)), more=edict(y="z" * 90, w=()))] * 2
config.section = edict(a=1)
"""


def test_awkward_values_survive(write):
    path = write(AWKWARD)
    text = render(str(path))
    expected = runpy.run_path(str(path))["config"]
    expected.save_all_states = True
    assert kinds(executed(text)) == kinds(expected)
    assert all(len(line) <= 115 for line in text.splitlines())  # a long string stays whole


def test_the_host_can_resume_whatever_the_recipe_says(write):
    text = render(str(write("config.save_all_states = False\nconfig.lr = 0.5")))
    assert list(executed(text).items()) == [("rec", "a"), ("save_all_states", True), ("lr", 0.5)]
    assert executed(render(str(write("")))).save_all_states is True


@pytest.mark.parametrize(
    "docstring", ['"""A \\"quoted\\" one, with é.\n\nMore.\n"""\n', "r'''raw \\d'''\n", ""]
)
def test_the_docstring_is_kept_as_it_is_written(write, docstring):
    text = render(str(write("", head=docstring)))
    assert text.startswith(docstring or "from easydict")
    assert list(executed(text)) == ["rec", "save_all_states"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("config.x = edict(y=[1, {2}])", "config.x.y[1] is {2}, of type set: arcface_torch's"),
        ("import numpy\nconfig.lr = numpy.float64(0.1)", "of type float64"),
        (
            "import collections\nconfig.x = [collections.namedtuple('P', 'a')(1)]",
            "config.x[0] is P(a=1), of type P",
        ),
        ("config.x = float('inf')", "config.x is inf, of type float"),
        ("config.x = print", "config.x is <built-in function print>, of type builtin_function"),
        ("config['two words'] = 1", "config['two words'] is no name"),
        ("1 / 0", "does not run: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_written_out_is_one_line(write, body, message):
    path = write(body)
    with pytest.raises(ArcfaceCakdError) as raised:
        render(str(path))
    assert message in str(raised.value) and str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ArcfaceCakdError, match="did you mean 'ms1mv3_swin_s'"):
        render("ms1mv3_swins")


@pytest.mark.skipif(
    "ARCFACE_TORCH" not in os.environ,
    reason="ARCFACE_TORCH names no checkout's recognition/arcface_torch",
)
def test_the_real_host_reads_them(tmp_path):
    host = Path(os.environ["ARCFACE_TORCH"]).resolve()
    (tmp_path / "configs").mkdir()
    for name in ("__init__.py", "base.py"):
        shutil.copy(host / "configs" / name, tmp_path / "configs")
    for name in HOST_RECIPES:
        (tmp_path / "configs" / f"{name}.py").write_text(render(name))
    code = (
        "import pickle, sys; from utils.utils_config import get_config;"
        "import configs.base; known = set(configs.base.config);"
        "sys.stdout.buffer.write(pickle.dumps((known, get_config('configs/' + sys.argv[1]))))"
    )
    for name in HOST_RECIPES:
        done = subprocess.run(
            [sys.executable, "-B", "-c", code, f"{name}.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(host)])},
            capture_output=True,
        )
        known, config = pickle.loads(done.stdout)
        data = {"rec", "num_classes", "num_image", "num_epoch", "warmup_epoch", "val_targets"}
        assert set(config) - known <= data | {"cakd"}
        assert config.output == f"work_dirs/{name}" and config.save_all_states is True
        recipe = executed(render(name))
        assert all(config[key] == value for key, value in recipe.items() if key != "output")


@pytest.mark.skipif(
    "ARCFACE_TORCH" not in os.environ,
    reason="ARCFACE_TORCH names no checkout's recognition/arcface_torch",
)
@pytest.mark.parametrize(
    "name",
    [
        f"{data}_{net}"
        for data in ("ms1mv2", "ms1mv3", "glint360k", "wf4m")
        for net in ("mbf", "r50")
    ],
)
def test_plain_students_are_those_of_the_host(name):
    folder = Path(os.environ["ARCFACE_TORCH"]) / "configs"
    base, own = (runpy.run_path(str(folder / f"{n}.py"))["config"] for n in ("base", name))
    theirs = {**base, **own, "save_all_states": True}
    recipe, settings = set_lines().get(name, (name, ()))
    ours = executed(rendered(recipe))
    for key, value in (setting.split("=") for setting in settings):
        if key != "output":  # arcface_torch's follows from the file's name
            ours[key] = value if key == "network" else ast.literal_eval(value)
    assert set(own) <= set(ours)
    assert {key: theirs[key] for key in ours} == ours


def test_its_commands_parse():
    commands = re.findall(r"^.*(?:arcface-cakd|-m arcface_cakd) .*$", README, flags=re.M)
    commands = [c for c in commands if c.startswith(("arcface-cakd", "torchrun"))]
    assert len(commands) == 8 + 4  # to run the default recipes, and lines for other sets
    for command in commands:
        words = shlex.split(command.replace("-m arcface_cakd", "arcface-cakd"))
        given = _parser().parse_args(words[words.index("arcface-cakd") + 1 :])
        if "train" in words:
            load_config(find_recipe(given.config), given.set)


def test_the_hosts_commands_name_recipes_that_it_gets():
    names = re.findall(r"train_v2\.py configs/(\S+)", README)
    assert names and set(names) <= set(HOST_RECIPES)
