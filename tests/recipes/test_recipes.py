"""Every recipe and every named run of one is valid, is what its name says, builds, and trains."""

import functools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.engine_runs import make_faces
from helpers.recipes import RECIPES, RUNS, loaded, on_meta
from helpers.urfm_forms import LEARNED

from arcface_cakd.config import TrainConfig
from arcface_cakd.distiller import Distiller
from arcface_cakd.engine import TrainResult, train
from arcface_cakd.landmarks import ARCFACE_TEMPLATE
from arcface_cakd.registry import LOSSES
from arcface_cakd.resources import recipe_files

REAL = [name for name in RUNS if not name.startswith("demo_")]
METHOD = ("embedding_cosine", "urfm_feature", "urfm_attention")
BASELINE = "ms1mv3_mbf_cakd_swin_s"
WITH_PROMPTS = f"{BASELINE}_apt"
# Identities and images, from arcface_torch's configs; for CASIA-WebFace see other_sets/_casia.py.
SETS = {
    "ms1mv2": (85742, 5822653),
    "ms1mv3": (93431, 5179510),
    "glint360k": (360232, 17091657),
    "wf4m": (205990, 4235242),
    "wf42m": (2059906, 42474557),
    "casia": (10572, 490623),
}
TEACHERS, STUDENTS = ("swin_s", "vit_s", "vit_b"), ("mbf", "r18", "r50")
# Whose class centres a recipe keeps frozen.
FROZEN = {
    "ms1mv3_mbf_thkd_swin_s": "ms1mv3_swin_s",
    "ms1mv3_swin_s_on_mbf_centers": "ms1mv3_mbf",
}
# ViTs for large data go by other names in arcface_torch, and are the same but for training.
SAME_NETWORK = {"vit_s_dp005_mask_0": "vit_s", "vit_b_dp005_mask_005": "vit_b"}


def kind(network: str) -> str:
    return SAME_NETWORK.get(network, network)


def recipe_of(path: str) -> str:
    """The recipe whose run leaves a file of that path."""
    folder, recipe, _ = path.split("/")
    assert folder == "work_dirs"
    return recipe


def described(name: str) -> str:
    return recipe_files()[name].read_text(encoding="utf-8").split('"""')[1]


@pytest.mark.parametrize("name", REAL)
def test_a_recipe_is_what_its_name_says(name):
    config = loaded(name)
    data, network, *rest = re.fullmatch(
        r"([^_]+)_(mbf|r18|r50|swin_s|vit_s|vit_b)(?:_(.+))?", name
    ).groups()
    assert (config.num_classes, config.num_image) == SETS[data]
    assert kind(config.network) == network
    assert config.output == f"work_dirs/{name}" and config.save_all_states
    docstring = None
    if name in RECIPES:  # what `arcface-cakd list recipes` shows of it
        docstring = recipe_files()[name].read_text(encoding="utf-8").split("\n", 1)[0]
        assert docstring.endswith("on 1 GPU." if name.endswith("_onegpu") else "on 8 GPUs.")
    if config.cakd is None:
        assert rest in ([None], ["onegpu"]) or name in FROZEN
    frozen = FROZEN.get(name)
    expected = None if frozen is None else f"work_dirs/{frozen}/checkpoint_gpu_*.pt"
    assert (config.init_centers, config.freeze_centers) == (expected, frozen is not None)
    assert frozen is None or (frozen in docstring and loaded(frozen).save_all_states)
    # But for distillation and frozen centres it is the baseline.
    baseline = loaded(f"{data}_{network}" + "_onegpu" * name.endswith("_onegpu"))
    changes = {"cakd": None, "output": "", "init_centers": None, "freeze_centers": False}
    assert replace(config, **changes) == replace(baseline, output="")
    if config.cakd is None:
        return
    assert network in STUDENTS
    weights = config.cakd.teacher["weights"]
    if weights.startswith("hf:"):  # a released teacher, which no recipe trains
        (released,) = re.fullmatch(r"cakd_(\w+)", rest[0]).groups()
        assert released in weights.lower().replace("-", "_") and "non-commercial" in described(name)
        assert replace(config, cakd=None, output="") == replace(
            loaded(f"{data}_{network}"), output=""
        )
        return
    taught = recipe_of(weights)
    teacher = loaded(taught)
    assert teacher.cakd is None and teacher.num_classes == config.num_classes
    assert kind(teacher.network) in TEACHERS and teacher.network == config.cakd.teacher["network"]
    assert f"_{kind(teacher.network)}" in name
    assert docstring is None or re.search(rf"\b{taught}\b", docstring)
    needed = any("centers" in LOSSES.get(entry.name).needs for entry in config.cakd.losses)
    needed |= (config.cakd.preservation or {}).get("kind") == "margin"
    centers = config.cakd.teacher["centers"]
    assert needed == (centers is not None)
    assert docstring is None or needed == bool(re.search("'s centres|its centres", docstring))
    if needed:
        assert centers == f"work_dirs/{taught}/checkpoint_gpu_*.pt" and teacher.save_all_states


def test_every_set_has_its_teachers_and_students():
    for data in SETS:
        for network in (*TEACHERS, *STUDENTS):
            assert loaded(f"{data}_{network}").cakd is None
        for student in STUDENTS:
            assert loaded(f"{data}_{student}_cakd_swin_s").cakd.urfm is not None
        for teacher in TEACHERS:  # every teacher has a student
            assert f"{data}_mbf_cakd_{teacher}" in RUNS
    for student in STUDENTS:
        for teacher in TEACHERS:
            assert f"ms1mv3_{student}_cakd_{teacher}" in RECIPES


def test_every_rival_has_a_recipe_on_the_baseline():
    ours = {n for n in LOSSES.names() if LOSSES.get(n).__module__.startswith("arcface_cakd.")}
    rivals = ours - set(METHOD) | {"embedding_cosine"}
    for rival in rivals:
        cakd = loaded(f"ms1mv3_mbf_{rival}_swin_s").cakd
        assert [entry.name for entry in cakd.losses] == [rival]
        assert cakd.prompts is None and cakd.urfm is None
        assert recipe_of(cakd.teacher["weights"]) == "ms1mv3_swin_s"


def test_every_ablation_differs_in_one_thing_from_the_method_or_from_that_with_prompts():
    names = [n for n in RUNS if n.startswith(f"{BASELINE}_") and not n.endswith("_onegpu")]
    entries = {n.removeprefix(f"{BASELINE}_"): loaded(n).cakd for n in names}

    def changed(entry, method):
        sections = ("teacher", "prompts", "urfm", "anchoring", "preservation")
        parts = {}
        for section in sections:
            before, now = getattr(method, section), getattr(entry, section)
            if before is None or now is None:
                if before != now:
                    parts[section] = now
            else:
                parts |= {f"{section}.{k}": v for k, v in now.items() if before[k] != v}
        if entry.losses != method.losses:
            assert all(loss in method.losses for loss in entry.losses)
            parts["losses"] = tuple(loss.name for loss in entry.losses)
        if entry.output_target != method.output_target:
            parts["output_target"] = entry.output_target
        compared = (*sections, "losses", "output_target")
        assert replace(entry, **{s: getattr(method, s) for s in compared}) == method
        return parts

    centers = "work_dirs/ms1mv3_swin_s/checkpoint_gpu_*.pt"
    preservation = {"kind": "embedding", "weight": 64.0}
    of_the_method = {
        "apt": {"prompts": loaded(WITH_PROMPTS).cakd.prompts, "preservation": preservation},
        "no_embedding": {"losses": METHOD[1:]},
        "only_feature": {"losses": METHOD[1:2]},
        "only_attention": {"losses": METHOD[2:]},
        "euclidean": {"urfm.face_distance": None},
        "saliency": {"urfm.face_distance": "saliency"},
        "image_landmarks": {"urfm.landmarks": "image"},
        "query": {"urfm.lookup": "content", "urfm.position": "query"},
        "centers16": {"urfm.num_centers": 16},
        "centers100": {"urfm.num_centers": 100},
        "separate_msa": {"urfm.shared_msa": False},
        "no_stop_gradient": {"urfm.stop_gradient": False},
        "no_anchoring": {"anchoring": None},
        "unanchored": {"urfm.stop_gradient": False, "anchoring": None},
    }
    of_prompts = {
        "no_apt": {"prompts": None, "preservation": None},
        "no_urfm": {
            "urfm": None,
            "anchoring": None,
            "losses": METHOD[:1],
            "output_target": "prompted",
        },
        "learned": {f"urfm.{name}": value for name, value in LEARNED.items()},
        **{f"prompts{n}": {"prompts.num_tokens": n} for n in (1, 4, 16, 32)},
        "prompts_last2": {"prompts.places": (2, 3)},
        "prompts_last": {"prompts.places": (3,)},
        "preservation": {"preservation.weight": 1.0},
        "no_preservation": {"preservation": None},
        "preservation_margin": {
            "preservation.kind": "margin",
            "preservation.weight": 0.1,
            "teacher.centers": centers,
        },
    }
    assert entries.keys() == of_the_method.keys() | of_prompts.keys()
    for recipe, expected in ((BASELINE, of_the_method), (WITH_PROMPTS, of_prompts)):
        assert {name: changed(entries[name], loaded(recipe).cakd) for name in expected} == expected


def test_without_apt_it_is_the_method():
    assert loaded(f"{BASELINE}_no_apt").cakd == loaded(BASELINE).cakd


def made_centers(folder: Path, classes: int, width: int) -> str:
    """A checkpoint with the class centres that a teacher would have left."""
    path = folder / "checkpoint_gpu_0.pt"
    weight = torch.randn(classes, width, generator=torch.Generator().manual_seed(0))
    torch.save({"state_dict_softmax_fc": {"weight": weight}, "global_step": 1}, path)
    return str(path)


@pytest.mark.parametrize("name", RUNS)
def test_it_builds(name, tmp_path):
    config = loaded(name)
    student = on_meta(config.network, config.embedding_size)
    assert student.embedding_size == config.embedding_size
    if config.cakd is None:
        return
    cakd = with_teacher(config, centers=made_centers(tmp_path, 10, config.embedding_size))
    teacher = on_meta(cakd.teacher["network"], config.embedding_size)
    model = Distiller(student, teacher, cakd, num_classes=10)
    assert set(model.losses) == {entry.name for entry in config.cakd.losses}
    assert (model.prompts is None) == (cakd.prompts is None)
    assert (model.urfm is None) == (cakd.urfm is None)


def with_teacher(config, **settings):
    return replace(config.cakd, teacher={**config.cakd.teacher, **settings})


STAND_INS = {"mbf": "r10_narrow", "r18": "r10_narrow", "r50": "r10_narrow", "r10_narrow": None}
STAND_INS |= {"swin_s": "swin_mini", "vit_s": "vit_mini", "vit_b": "vit_mini", "swin_mini": None}


def stand_in(network: str) -> str:
    return STAND_INS[kind(network)] or network


def reduced(name: str) -> TrainConfig:
    """The recipe with narrow networks of the same kind, four images a step, a random teacher."""
    config = loaded(name)
    cakd = config.cakd
    if cakd is not None:
        network = stand_in(cakd.teacher["network"])
        cakd = with_teacher(config, network=network, weights="random")
        places = (cakd.prompts or {}).get("places")
        if places and network == "swin_mini":  # has three stages, not four
            places = tuple(place - 1 for place in places)
            cakd = replace(cakd, prompts={**cakd.prompts, "places": places})
    return replace(
        config,
        rec="",
        output="",
        network=stand_in(config.network),
        embedding_size=64,
        num_classes=None,
        num_image=None,
        batch_size=4,
        # What a run of two steps does not reach, or what fp16 needs a GPU for.
        num_epoch=4,
        warmup_epoch=float(config.warmup_epoch > 0),
        fp16=False,
        bf16=True,
        num_workers=0,
        save_all_states=False,
        checkpoint_every=None,
        val_targets=(),
        verbose=1000,
        frequent=1,
        cakd=cakd,
    )


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """Trains a reduced recipe for two steps on six identities with six images each. Recipes that
    differ only in what reducing replaces (data, batch, networks of one kind, the teacher's file)
    are one run."""
    folder = make_faces(tmp_path_factory.mktemp("recipes") / "faces")
    np.save(folder / "train_landmarks.npy", np.tile(ARCFACE_TEMPLATE, (36, 1, 1)))
    centers = made_centers(folder, classes=6, width=64)

    @functools.cache
    def run(recipe: str) -> TrainResult:
        config = replace(reduced(recipe), rec=str(folder))
        config = replace(config, output=str(tmp_path_factory.mktemp(recipe)))
        if config.cakd is not None and config.cakd.teacher["centers"] is not None:
            config = replace(config, cakd=with_teacher(config, centers=centers))
        if config.init_centers is not None:
            config = replace(config, init_centers=str(centers))
        return train(config, stop_after_step=2)

    first = {repr(reduced(name)): name for name in reversed(RUNS)}
    return lambda name: run(first[repr(reduced(name))])


@pytest.mark.parametrize("name", RUNS)
def test_it_trains_two_steps(name, two_steps):
    result = two_steps(name)
    assert result.global_step == 2
    lines = [line for line in result.history if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2]
    cakd = loaded(name).cakd
    names = {entry.name for entry in (cakd.losses if cakd else ())}
    for line in lines:
        assert ("margin" in line) == (cakd is None or cakd.margin_weight > 0)
        terms = {"margin": line.get("margin", 0.0), **line.get("terms", {})}
        assert names <= set(terms)
        assert all(math.isfinite(value) for value in terms.values())


def test_no_two_rivals_or_ablations_are_one_run():
    groups: dict[str, list[str]] = {}
    for name in RUNS:
        groups.setdefault(repr(reduced(name)), []).append(name)
    for names in groups.values():  # both ViTs are one kind, and LVFace is another's weights
        alike = [n for n in names if n.startswith("ms1mv3_mbf_")]
        alike = [n for n in alike if "onegpu" not in n and "lvface" not in n]
        assert len(alike) <= 2, alike
