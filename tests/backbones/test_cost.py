"""Multiply-adds and parameters against a sum over layers."""

import torch
from helpers.small_networks import SmallNetwork

from arcface_cakd.backbones.cost import multiply_adds, parameters


def test_multiply_adds_are_those_of_the_layers():
    model = SmallNetwork().train()
    counted = {}

    def count(layer, given, made):
        weights = layer.weight[0].numel()
        counted[layer] = weights * made[0].numel()

    for layer in (model.stem, model.convolution, model.pool, model.linear):
        layer.register_forward_hook(count)
    found = multiply_adds(model)
    assert model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 112, 112))
    assert found == sum(counted.values()) > 0


def test_parameters_are_counted():
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Conv2d(2, 4, 3, bias=False))
    assert parameters(model) == 5 * 3 + 3 + 2 * 4 * 9
