"""Rates, margins and weights of the recipes: those of their sources, by rule or by value."""

import math
import re
from dataclasses import replace

import pytest
from helpers.recipes import RUNS, gpus, loaded

from arcface_cakd.config import METHOD_LOSSES, CakdConfig, LossEntry

ARCFACE, COSFACE = (1.0, 0.5, 0.0), (1.0, 0.0, 0.4)
ON_ARCFACE = ("ms1mv2", "ms1mv3", "casia")

REAL = [name for name in RUNS if not name.startswith("demo_")]
TEACHERS = [n for n in REAL if re.fullmatch(r"[^_]+_(swin|vit)_[a-z](_onegpu)?", n)]
STUDENTS = [n for n in REAL if re.fullmatch(r"[^_]+_(mbf|r18|r50)(_onegpu)?", n)]
WHOLE = [n for n in REAL if re.fullmatch(r"[^_]+_[^_]+_cakd_(swin|vit)_[a-z](_onegpu)?", n)]


def images(name: str) -> int:
    """Images of a step on all GPUs."""
    return gpus(name) * loaded(name).batch_size


@pytest.mark.parametrize("name", REAL)
def test_what_all_have_in_common(name):
    config = loaded(name)
    data = name.split("_")[0]
    assert images(name) == (512 if data == "casia" else 1024 // (8 // gpus(name)))
    assert config.sample_rate == (0.2 if data == "wf42m" else 1.0)
    assert config.fp16 and config.embedding_size == 512 and config.gradient_acc == 1
    assert config.seed == 2048  # one for all, so that a comparison starts from one student


@pytest.mark.parametrize("name", TEACHERS)
def test_teachers_are_trained_as_arcface_torchs_vits(name):
    config = loaded(name)
    assert (config.optimizer, config.weight_decay, config.margin_list) == ("adamw", 0.1, COSFACE)
    assert config.lr == pytest.approx(1e-3 * math.sqrt(images(name) / 4096), rel=0.02)
    assert config.num_epoch == (40 if name.startswith("casia_") else 20)
    assert config.warmup_epoch == config.num_epoch / 10


@pytest.mark.parametrize("name", STUDENTS)
def test_students_are_trained_as_arcface_torchs_cnns(name):
    """The eight that arcface_torch has are compared with its own, key by key, in
    ``patching/test_host_recipes.py``, where a checkout is given."""
    config = loaded(name)
    data, network = name.split("_")[:2]
    assert (config.optimizer, config.momentum, config.warmup_epoch) == ("sgd", 0.9, 0)
    assert config.lr == (0.02 if gpus(name) == 1 else 0.1)
    assert config.margin_list == (ARCFACE if data in ON_ARCFACE else COSFACE)
    assert config.weight_decay == (1e-4 if network == "mbf" or data == "glint360k" else 5e-4)
    long = data == "casia" or (network == "mbf" and data in ON_ARCFACE)
    assert config.num_epoch == (40 if long else 20)


def test_the_method_is_the_same_wherever_it_is_whole():
    method = loaded("ms1mv3_mbf_cakd_swin_s").cakd
    assert len(WHOLE) >= 6 * 5 + 4 + 1  # six sets, on MS1MV3 all pairs, and the one for 1 GPU
    for name in WHOLE:
        assert replace(loaded(name).cakd, teacher=method.teacher) == method, name
    # One set of losses and weights, for code and recipes.
    assert method.losses == tuple(LossEntry.from_entry(loss, "here") for loss in METHOD_LOSSES)
    weights = {entry.name: entry.weight for entry in method.losses}
    assert weights["embedding_cosine"] == RIVALS["embedding_cosine"][0]
    assert method == CakdConfig.from_entry({"teacher": method.teacher})
    assert method.anchoring["weight"] == method.margin_weight == 1
    assert method.prompts is None and method.preservation is None
    assert (method.urfm["num_centers"], method.urfm["dim"]) == (49, None)
    assert (method.urfm["face_distance"], method.urfm["position"]) == ("relative", "query_key")


def test_the_recipe_with_prompts_has_them_and_preservation_as_they_are_by_default():
    prompted = loaded("ms1mv3_mbf_cakd_swin_s_apt").cakd
    asked = {"teacher": prompted.teacher, "prompts": {}}
    assert prompted == CakdConfig.from_entry(asked)
    assert prompted.preservation == {"kind": "embedding", "weight": 64.0}
    assert prompted.prompts["num_tokens"] == 8 and prompted.prompts["places"] is None


# Weight and settings, where those are not the loss's defaults. The weights of the first block are
# RepDistiller's; sp's and pkt's are for 64 images and fall with the batch, which here has 1024.
PUBLISHED = {
    "fitnet": (100, {}),
    "at": (1000, {}),
    "sp": (3000 * 1024 / 64, {}),
    "pkt": (30000 * 1024 / 64, {}),
    "vid": (1, {}),
    "rkd": (1, {"distance_weight": 25, "angle_weight": 50}),
    "fsp": (50, {"projection": True}),
    "crd": (0.8, {}),
    "dkd": (1, {"alpha": 1, "beta": 8, "temperature": 4}),
    "mgd": (7e-5 * 768 * 49, {"mask": "channels", "mask_ratio": 0.15}),
    "ekd": (1, {"positive_weight": 0.02, "negative_weight": 0.01}),
    "scalekd": (0.08 * 49, {"spatial_weight": 1, "frequency_weight": 0.06 / 0.08}),
    "pat": (1, {"dim": 512, "side": 4}),
    "triplet_distillation": (1, {"margin_min": 0.2, "margin_max": 0.5}),
}
ALONE = {
    "margin_distillation": {},
    "arcdistill": {"margin": 0.45},
    "cosdistill": {"margin": 0.45},
    "adadistill": {"margin": 0.45},
}
OURS = {
    "kd": (1, {"temperature": 4}),
    "cckd": (100, {}),
    "reviewkd": (1, {}),
    "ofa_kd": (1, {"eps": 1.5}),
    "cakd_liu": (1, {}),
    "gkd": (1, {"threshold": 0.9, "temperature": 4}),
    "thkd": (64, {}),
    "shkd": (64, {}),
    "iled_rpsd": (10, {"relation_weight": 1}),
    "embedding_cosine": (64, {}),
    "embedding_l2": (64 / 512, {"normalize": False}),
    "shrinkteanet": (64, {}),
}
RIVALS = {**PUBLISHED, **OURS, **{name: (1, settings) for name, settings in ALONE.items()}}


def test_no_rival_is_without_a_source_of_its_weight():
    one = [n for n in REAL if n.startswith("ms1mv3_mbf_") and n.endswith("_swin_s")]
    names = {n.removeprefix("ms1mv3_mbf_").removesuffix("_swin_s") for n in one}
    assert names - {"cakd"} == set(RIVALS)


@pytest.mark.parametrize("rival", RIVALS)
def test_a_rivals_weight_is_that_of_its_source(rival):
    config = loaded(f"ms1mv3_mbf_{rival}_swin_s")
    (entry,) = config.cakd.losses
    weight, settings = RIVALS[rival]
    assert entry.weight == pytest.approx(weight, rel=0.03)
    assert settings.items() <= entry.settings.items()
    assert config.cakd.margin_weight == (0 if rival in ALONE else 1)
    if rival in ("dkd", "reviewkd"):  # mdistiller's: 20 of 240 epochs
        steps = config.num_image // images(f"ms1mv3_mbf_{rival}_swin_s") * config.num_epoch
        assert entry.schedule == {"kind": "warmup", "steps": steps // 12, "floor": 0.0}
    else:
        assert entry.schedule is None
