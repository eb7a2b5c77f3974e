"""Weights and models of timm and torchvision in ours, and our models in timm.

Nothing here imports those libraries until a function that needs them is called.
"""

from zoo.interop.convert import convert_state_dict
from zoo.interop.external import create_external
from zoo.interop.timm import register_with_timm

__all__ = ["convert_state_dict", "create_external", "register_with_timm"]
