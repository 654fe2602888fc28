"""The recipes as configs and networks, for the tests of them."""

import functools
import warnings

import torch

from arcface_cakd.backbones import FaceBackbone, get_model
from arcface_cakd.config import TrainConfig, load_config
from arcface_cakd.resources import recipe_files, set_lines

RECIPES = list(recipe_files())
# And what a line of settings makes of one of them, by the names that those runs have.
RUNS = sorted([*RECIPES, *set_lines()])


@functools.cache
def loaded(name: str) -> TrainConfig:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe, settings = set_lines().get(name, (name, ()))
        return load_config(recipe_files()[recipe], settings)


def gpus(name: str) -> int:
    return 1 if name.endswith("_onegpu") or name.startswith("demo_") else 8


@functools.cache
def on_meta(network: str, embedding_size: int) -> FaceBackbone:
    try:
        with torch.device("meta"):
            return get_model(network, num_features=embedding_size)
    except RuntimeError:  # timm 1.0.9 computes with numbers while it builds
        return get_model(network, num_features=embedding_size).to("meta")
