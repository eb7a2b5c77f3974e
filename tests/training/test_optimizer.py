"""Optimizers by name, what they decay, and the moving average."""

from dataclasses import replace

import pytest
import torch
from scenarios import network
from torch import nn

from zoo.recipes import Recipe
from zoo.training.optimizer import WeightAverage, make_optimizer

RECIPE = Recipe("test", lr=0.01, momentum=0.8, weight_decay=0.05)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "nadamw", "lamb", "muon"])
def test_norms_and_biases_are_not_decayed(name: str) -> None:
    model = network()
    optimizer = make_optimizer(model, replace(RECIPE, optimizer=name))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for label, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.05 if label in ("0.weight", "5.weight") else 0.0), label
    assert len(decay) == 6


def test_frozen_parameters_are_left_out() -> None:
    model = network()
    model.get_parameter("0.weight").requires_grad_(False)
    optimizer = make_optimizer(model, RECIPE)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5


def test_a_group_without_members_is_left_out() -> None:
    assert len(make_optimizer(nn.Linear(2, 2, bias=False), RECIPE).param_groups) == 1


@pytest.mark.parametrize(("name", "key", "value"), [("sgd", "momentum", 0.8), ("adamw", "betas", (0.8, 0.999))])
def test_momentum_and_rate_arrive(name: str, key: str, value: object) -> None:
    for group in make_optimizer(network(), replace(RECIPE, optimizer=name)).param_groups:
        assert group[key] == value
        assert group["lr"] == 0.01
    assert make_optimizer(network(), RECIPE).param_groups[0]["nesterov"] is True
    assert make_optimizer(network(), replace(RECIPE, momentum=0.0)).param_groups[0]["nesterov"] is False


def test_an_average_is_a_copy_in_eval_mode() -> None:
    model = network().train()
    average = WeightAverage(model, 0.5)
    assert not average.model.training
    assert model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    with torch.no_grad():
        model.get_parameter("5.bias").add_(1)
    assert not average.model.get_parameter("5.bias").equal(model.get_parameter("5.bias"))


def test_the_decay_is_ramped_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.3)
    nn.init.ones_(model.weight)
    left = 1.0
    for decay in (1 / 10, 2 / 11, 3 / 12, 0.3, 0.3):
        average.update(model)
        left *= decay
        assert float(average.model.get_parameter("weight")) == pytest.approx(1 - left)
