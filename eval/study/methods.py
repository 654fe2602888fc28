"""The methods of the study: each a name, and the `cakd` entry that it trains with.

An entry lacks its teacher, which the data bring; what it says of the teacher is added to that.
Each says itself what is on. All keep the student's own margin softmax, at weight 1, unless
their name says otherwise.

Weights: the embedding alone stands at 10, 64 and 256. Every rival has three, at which its gradient
on the student is about as large as the embedding's at those: measured after 20 steps of one run,
see LOG.md. Published weights go with other data, teachers and margins, and make gradients of
0.0003 to 7 times that; so no rival is judged by a weight that is out of proportion here.
"""

from collections.abc import Mapping
from typing import Any

Entry = dict[str, Any]


def distilled(*losses: Entry, **parts: Any) -> Entry:
    """An entry of these losses alone: no prompts and no URFM, unless ``parts`` say so."""
    return {"prompts": None, "urfm": None, "losses": list(losses), **parts}


def embedding(weight: float) -> Entry:
    return {"name": "embedding_cosine", "weight": weight}


# From its weight to 0 over the run, linearly.
FALLING: Entry = {"schedule": {"kind": "decay"}}
# The embedding's weight, and URFM's where it falls.
FALLING_FROM = ((64.0, 50.0), (64.0, 100.0), (64.0, 200.0), (128.0, 100.0), (256.0, 100.0))


def with_urfm(
    feature: float, attention: float, alone: float = 64.0, *, falling: bool = False
) -> Entry:
    """The embedding, and URFM as it is by default, at the demo's rate (5 times 0.1)."""
    changing = FALLING if falling else {}
    losses = [embedding(alone), {"name": "urfm_feature", "weight": feature, **changing}]
    if attention:
        losses.append({"name": "urfm_attention", "weight": attention})
    return distilled(*losses, urfm={}, anchoring={}, lr_scale={"urfm": 5.0})


# A rival's loss: its middle weight, and its settings where they are not its own defaults.
RIVALS: dict[str, tuple[float, Entry]] = {
    "adadistill": (0.86, {}),
    "arcdistill": (0.9, {}),
    "at": (4300.0, {}),
    "cakd_liu": (0.19, {}),
    "cckd": (930.0, {}),
    "cosdistill": (0.85, {}),
    "crd": (1.2, {}),
    "dkd": (0.26, {}),
    "ekd": (6.4, {}),
    "embedding_l2": (0.58, {"normalize": False}),
    "fitnet": (14.0, {}),
    "fsp": (54.0, {"projection": True}),
    "gkd": (0.19, {}),
    "iled_rpsd": (42.0, {}),
    "kd": (0.17, {}),
    "margin_distillation": (0.82, {}),
    "mgd": (7.1, {"mask": "channels", "mask_ratio": 0.15}),
    "ofa_kd": (0.71, {}),
    "pat": (10.0, {}),
    "pkt": (38000.0, {}),
    "reviewkd": (40.0, {"schedule": {"kind": "warmup", "steps": 35}}),
    "rkd": (6.7, {}),
    "scalekd": (850.0, {}),
    "shrinkteanet": (30.0, {}),
    "sp": (1000.0, {}),
    "triplet_distillation": (25.0, {}),
    "vid": (3300.0, {}),
}
FACTORS = (0.2, 1.0, 3.0)  # the embedding's gradient at 10, 64, 256: 2.5, 13.5, 42
# What a method says where it begins with, or compares with, the teacher's class centres. Most
# teachers here have none of these people: they are normalised means of its embeddings (cells.py).
TEACHERS_CENTRES = "teacher's class means"
COMPARING_WITH_CENTRES = frozenset(
    {"arcdistill", "cosdistill", "dkd", "gkd", "kd", "margin_distillation", "ofa_kd"}
)

# Rivals that are also tried beside the embedding, as URFM is; most look at pixel features.
BESIDE = (
    *("at", "cakd_liu", "fitnet", "mgd", "pat", "reviewkd", "rkd", "scalekd"),
    *("shrinkteanet", "vid"),
)
# Those that came nearest to URFM on real faces, each at three weights; FitNet's are in _beside.
NEAREST = ("cakd_liu", "pat", "reviewkd")

EMBEDDING, URFM = "embedding_64", "embedding_64_urfm_50_1"
DEFAULT = "embedding_64_urfm_100_1_falling"  # the package's
# What is tried with other settings than the data's (grid.py), and those settings.
OURS = (EMBEDDING, URFM, DEFAULT)
# What of the families that came nearest is tried with twice the epochs, at three weights; at a
# fourth where the highest was the best.
PATIENT = (
    *("plain", "embedding_128", "embedding_256", f"{EMBEDDING}_urfm_200_1_falling"),
    *(f"{EMBEDDING}_urfm_50_1_falling", f"{EMBEDDING}_fitnet_14", f"{EMBEDDING}_fitnet_42"),
    *(f"{EMBEDDING}_fitnet_140", f"{EMBEDDING}_cakd_liu_0.038", f"{EMBEDDING}_cakd_liu_0.19"),
    *(f"{EMBEDDING}_cakd_liu_0.57", f"{EMBEDDING}_cakd_liu_1.7", f"{EMBEDDING}_fitnet_420"),
    *(f"{EMBEDDING}_pat_2", f"{EMBEDDING}_pat_10"),
    *(f"{EMBEDDING}_pat_30", f"{EMBEDDING}_reviewkd_8", f"{EMBEDDING}_reviewkd_40"),
    *(f"{EMBEDDING}_reviewkd_120", f"{EMBEDDING}_reviewkd_360"),
    *("embedding_128_urfm_100_1_falling", "embedding_256_urfm_100_1_falling"),
    *("shrinkteanet_90", f"{EMBEDDING}_shrinkteanet_30"),
)
# What is tried for as long as people train.
LONG = (
    *("plain", "embedding_128", DEFAULT),
    *(
        f"{EMBEDDING}_{rival}"
        for rival in ("reviewkd_40", "reviewkd_120", "cakd_liu_0.57", "fitnet_140")
    ),
)
VARIED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "augmented": (OURS, {"augment": {}}),
    # As much CPU time as the default takes with 4 epochs.
    "5_epochs": (("plain", EMBEDDING), {"num_epoch": 5}),
    "8_epochs": ((*OURS, *PATIENT), {"num_epoch": 8}),
    "16_epochs": (LONG, {"num_epoch": 16}),
    "32_epochs": (LONG, {"num_epoch": 32}),
    "16_epochs_augmented": ((DEFAULT,), {"num_epoch": 16, "augment": {}}),
    "class_means": (OURS, {"init_centers": TEACHERS_CENTRES}),
}
# By the name of the method with them.
SETTINGS: dict[str, dict[str, Any]] = {
    f"{name}_{what}": settings for what, (names, settings) in VARIED.items() for name in names
}


# With more epochs the plain student gets worse on dev: its best stands beside what has more.
BEST_PLAIN = "plain_8_epochs"


def plain_of(method: str) -> str:
    """The plain student with the settings that ``method`` has of its own, where there is one."""
    if "_16_epochs" in method or "_32_epochs" in method:
        return BEST_PLAIN
    for what, (names, _) in VARIED.items():
        if method.endswith(f"_{what}") and "plain" in names:
            return f"plain_{what}"
    return "plain"


def _rivals(factor: float) -> dict[str, Entry]:
    """Each rival alone, at its middle weight times ``factor``."""
    found = {}
    for name, (middle, settings) in RIVALS.items():
        weight = float(f"{middle * factor:g}")
        parts = {"teacher": {"centers": TEACHERS_CENTRES}} if name in COMPARING_WITH_CENTRES else {}
        loss = {"name": name, "weight": weight, **settings}
        found[f"{name}_{weight:g}"] = distilled(loss, **parts)
    return found


def _beside() -> dict[str, Entry]:
    """The embedding, and a rival at its middle weight; those that came nearest at others too."""
    fitnet = {
        f"{EMBEDDING}_fitnet_{weight:g}{'_falling' if changing else ''}": distilled(
            embedding(64.0), {"name": "fitnet", "weight": weight, **changing}
        )
        for weight, changing in ((42.0, {}), (140.0, {}), (420.0, {}), (200.0, FALLING))
    }
    found = {}
    for name in BESIDE:
        middle, settings = RIVALS[name]
        for factor in FACTORS if name in NEAREST else (1.0,):
            weight = float(f"{middle * factor:g}")
            loss = {"name": name, "weight": weight, **settings}
            found[f"{EMBEDDING}_{name}_{weight:g}"] = distilled(embedding(64.0), loss)
    return fitnet | found


def _fourth() -> dict[str, Entry]:
    """A fourth weight for those whose highest of three was the best somewhere."""

    def loss(name: str, weight: float) -> Entry:
        return {"name": name, "weight": weight, **RIVALS[name][1]}

    alone = {
        f"{name}_{weight:g}": distilled(loss(name, weight))
        for name, weight in (("embedding_l2", 5.2), ("shrinkteanet", 270.0))
    }
    return alone | {
        f"{EMBEDDING}_{name}_{weight:g}": distilled(embedding(64.0), loss(name, weight))
        for name, weight in (("cakd_liu", 1.7), ("reviewkd", 360.0))
    }


def _designs() -> dict[str, Entry]:
    """Other forms of our own, of URFM and of what stands around it."""
    urfm = with_urfm(50.0, 1.0)
    learned = {
        "lookup": "content",
        "shared_lookup": False,
        "fixed_values": False,
        "standardise": "channel",
        "residual": False,
        "dim": 256,
    }
    return {
        f"{EMBEDDING}_no_margin": distilled(embedding(64.0), margin_weight=0.0),
        f"{URFM}_no_margin": {**urfm, "margin_weight": 0.0},
        f"{URFM}_learned": {**urfm, "urfm": learned},
        f"{URFM}_unscaled": {**urfm, "lr_scale": {"urfm": 1.0}},
        f"{URFM}_stage_1": {**urfm, "teacher": {"stage": 1}},
    }


def _varied(methods: Mapping[str, Entry | None]) -> dict[str, Entry | None]:
    """The methods of SETTINGS: the same entries, with what a cache of augmented views wants."""
    found: dict[str, Entry | None] = {}
    for what, (names, settings) in VARIED.items():
        for name in names:
            entry = methods[name]
            if entry is not None and "augment" in settings:
                entry = {**entry, "teacher": {"cached_views": 4}}
            found[f"{name}_{what}"] = entry
    return found


def _weights() -> dict[str, Entry]:
    """The embedding and URFM at other weights; those that ``_methods`` has are not among them."""
    return {
        f"embedding_{alone:g}_urfm_{feature:g}_{attention:g}": with_urfm(feature, attention, alone)
        for alone in (64.0, 256.0)
        for feature in (12.5, 50.0, 100.0, 200.0, 800.0)
        for attention in (0.0, 1.0)
        if (alone, feature, attention)
        not in {(64.0, 50.0, 1.0), (64.0, 200.0, 1.0), (256.0, 200.0, 1.0)}
    }


def _falling() -> dict[str, Entry]:
    """URFM's feature term falling to 0 over the run, or over its first half."""
    methods = {
        f"embedding_{alone:g}_urfm_{feature:g}_1_falling": with_urfm(
            feature, 1.0, alone, falling=True
        )
        for alone, feature in FALLING_FROM
    }
    for feature in (100.0, 200.0):
        entry = with_urfm(feature, 1.0)
        entry["losses"][1]["schedule"] = {"kind": "decay", "steps": 208}
        methods[f"embedding_64_urfm_{feature:g}_1_falling_early"] = entry
    return methods


def _ablations() -> dict[str, Entry]:
    """The default with one part of URFM otherwise; the last has no loss on attention."""
    parts: dict[str, Entry] = {
        "euclidean": {"face_distance": None},
        "saliency": {"face_distance": "saliency"},
        "at_landmarks": {"placing": "landmarks"},
        "16_centers": {"num_centers": 16},
        "100_centers": {"num_centers": 100},
        "by_content": {"lookup": "content", "shared_lookup": False},
        "no_msa_residual": {"residual": False},
    }
    default = with_urfm(100.0, 1.0, falling=True)
    found = {f"{DEFAULT}_{name}": {**default, "urfm": urfm} for name, urfm in parts.items()}
    return found | {"embedding_64_urfm_100_0_falling": with_urfm(100.0, 0.0, falling=True)}


def _apt() -> dict[str, Entry]:
    """Prompts beside URFM; for teachers that take them, the Swins."""
    method = {**with_urfm(50.0, 1.0), "prompts": {"num_tokens": 4}, "preservation": {}}
    variants: dict[str, Entry] = {
        "": {},
        "_16": {"prompts": {"num_tokens": 16}},
        "_feedback": {"prompts": {"num_tokens": 4, "feedback": True}},
        "_free": {"preservation": None},
        "_lightly": {"preservation": {"weight": 4.0}},
        "_pulled": {"urfm": {"stop_gradient": False}},
        "_prompted_target": {"output_target": "prompted"},
        "_tokens": {"urfm": {"prompt_tokens": "detached"}},
    }
    return {f"{URFM}_apt{name}": {**method, **parts} for name, parts in variants.items()}


def _methods() -> dict[str, Entry | None]:
    methods: dict[str, Entry | None] = {"plain": None}
    for alone in (10.0, 64.0, 128.0, 256.0):
        methods[f"embedding_{alone:g}"] = distilled(embedding(alone))
    for factor in FACTORS:
        methods |= _rivals(factor)
    methods["embedding_64_urfm_5_100"] = with_urfm(5.0, 100.0)
    methods[URFM] = with_urfm(50.0, 1.0)
    methods["embedding_64_urfm_200_1"] = with_urfm(200.0, 1.0)
    methods["embedding_256_urfm_200_1"] = with_urfm(200.0, 1.0, alone=256.0)
    methods |= {**_weights(), **_falling(), **_apt(), **_beside(), **_fourth(), **_designs()}
    methods |= _ablations()
    return methods | _varied(methods)


METHODS: Mapping[str, Entry | None] = _methods()

# What is looked at and not trained; each has one cell, of seed 0.
REFERENCES = ("teacher", "colour_histogram")

GROUPS: dict[str, tuple[str, ...]] = {
    "references": REFERENCES,
    "baselines": ("plain", "embedding_10", "embedding_64", "embedding_128", "embedding_256"),
    "rivals": tuple(name for factor in (1.0, 0.2, 3.0) for name in _rivals(factor)),
    "beside": tuple(_beside()),
    "fourth": tuple(_fourth()),
    "designs": tuple(_designs()),
    "varied": tuple(SETTINGS),
    "weights": tuple(_weights()),
    "falling": tuple(_falling()),
    "apt": tuple(_apt()),
    "ablations": tuple(_ablations()),
    "urfm": (
        URFM,
        "embedding_64_urfm_5_100",
        "embedding_64_urfm_200_1",
        "embedding_256_urfm_200_1",
    ),
}
