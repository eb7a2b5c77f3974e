"""What a network is remembered by."""

import copy

import pytest
import torch

from zoo.errors import UnknownNameError
from zoo.registry import Origin, build, origin


def test_a_network_knows_what_it_was_built_as_and_so_does_a_copy() -> None:
    model = build("lenet5", num_classes=7, in_chans=3, image_size=28)
    assert origin(copy.deepcopy(model)) == Origin("lenet5", 7, 3, 28)
    assert origin(model).image == (3, 28, 28)
    with pytest.raises(UnknownNameError, match="Linear was not built by its name"):
        origin(torch.nn.Linear(2, 2))
