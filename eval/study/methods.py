"""The methods of the study: each a name, and the `cakd` entry that it trains with.

An entry lacks its teacher, which the data bring. Each says itself what is on. All keep the
student's own margin softmax, at weight 1.

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


def with_urfm(feature: float, attention: float, alone: float = 64.0) -> Entry:
    """The embedding, and URFM as it is by default, at the demo's rate (5 times 0.1)."""
    return distilled(
        embedding(alone),
        {"name": "urfm_feature", "weight": feature},
        {"name": "urfm_attention", "weight": attention},
        urfm={},
        anchoring={},
        lr_scale={"urfm": 5.0},
    )


# A rival's loss: its middle weight, and its settings where they are not its own defaults. Those
# that compare with the teacher's class centres are not here: EdgeFace has none for this set.
RIVALS: dict[str, tuple[float, Entry]] = {
    "adadistill": (0.86, {}),
    "at": (4300.0, {}),
    "cakd_liu": (0.19, {}),
    "cckd": (930.0, {}),
    "crd": (1.2, {}),
    "ekd": (6.4, {}),
    "embedding_l2": (0.58, {"normalize": False}),
    "fitnet": (14.0, {}),
    "fsp": (54.0, {"projection": True}),
    "iled_rpsd": (42.0, {}),
    "mgd": (7.1, {"mask": "channels", "mask_ratio": 0.15}),
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


def _methods() -> dict[str, Entry | None]:
    methods: dict[str, Entry | None] = {"plain": None}
    for alone in (10.0, 64.0, 256.0):
        methods[f"embedding_{alone:g}"] = distilled(embedding(alone))
    for name, (middle, settings) in RIVALS.items():
        for factor in FACTORS:
            weight = float(f"{middle * factor:g}")
            methods[f"{name}_{weight:g}"] = distilled({"name": name, "weight": weight, **settings})
    methods["embedding_64_urfm_5_100"] = with_urfm(5.0, 100.0)
    methods["embedding_64_urfm_50_1"] = with_urfm(50.0, 1.0)
    methods["embedding_64_urfm_200_1"] = with_urfm(200.0, 1.0)
    methods["embedding_256_urfm_200_1"] = with_urfm(200.0, 1.0, alone=256.0)
    # For teachers that take prompts: the Swins of made faces.
    methods["embedding_64_urfm_50_1_apt"] = {
        **with_urfm(50.0, 1.0),
        "prompts": {"num_tokens": 4},
        "preservation": {},
    }
    return methods


METHODS: Mapping[str, Entry | None] = _methods()

# What is looked at and not trained; each has one cell, of seed 0.
REFERENCES = ("teacher", "colour_histogram")

GROUPS: dict[str, tuple[str, ...]] = {
    "references": REFERENCES,
    "baselines": ("plain", "embedding_10", "embedding_64", "embedding_256"),
    "rivals": tuple(
        f"{name}_{float(f'{middle * factor:g}'):g}"
        for factor in (1.0, 0.2, 3.0)
        for name, (middle, _) in RIVALS.items()
    ),
    "apt": ("embedding_64_urfm_50_1_apt",),
    "urfm": (
        "embedding_64_urfm_50_1",
        "embedding_64_urfm_5_100",
        "embedding_64_urfm_200_1",
        "embedding_256_urfm_200_1",
    ),
}
