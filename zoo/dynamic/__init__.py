"""Networks that adapt their computation: in depth, by early exits; in width, by slimmable layers."""

from zoo.dynamic.depth import (
    Answers,
    ExitRule,
    Outcome,
    choose_rule,
    curve,
    evaluate_early,
    exit_answers,
    exit_macs,
    outcome,
    uncertainty,
)
from zoo.dynamic.width import extract_width
from zoo.models.branchy import EarlyExits, add_exits
from zoo.models.slimmable import Slimmable

__all__ = [
    "Answers",
    "EarlyExits",
    "ExitRule",
    "Outcome",
    "Slimmable",
    "add_exits",
    "choose_rule",
    "curve",
    "evaluate_early",
    "exit_answers",
    "exit_macs",
    "extract_width",
    "outcome",
    "uncertainty",
]
