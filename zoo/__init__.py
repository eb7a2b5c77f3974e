"""zoo: efficient image classifiers with pretrained weights, exact costs, one trainer and one ranked table.

>>> import zoo
>>> model = zoo.create_model("squeezenet1_1", dataset="cifar10", pretrained=True)

Every public name is imported when it is first used, so that `import zoo` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo import errors, interop
    from zoo.compression import Packed, Receipt, compress, load_packed, save_packed
    from zoo.cost import Cost, measure
    from zoo.create import create_model, list_models
    from zoo.data import Dataset, load_dataset, preprocess
    from zoo.evaluation import Evaluation, evaluate
    from zoo.ranking import Row, rank
    from zoo.recipes import Recipe
    from zoo.registry import Architecture, register
    from zoo.training import Objective, Run, fit
    from zoo.weights import Card

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "Card",
    "Cost",
    "Dataset",
    "Evaluation",
    "Objective",
    "Packed",
    "Receipt",
    "Recipe",
    "Row",
    "Run",
    "compress",
    "create_model",
    "errors",
    "evaluate",
    "fit",
    "interop",
    "list_models",
    "load_dataset",
    "load_packed",
    "measure",
    "preprocess",
    "rank",
    "register",
    "save_packed",
]

_HOMES = {
    "Architecture": "zoo.registry",
    "Card": "zoo.weights",
    "Cost": "zoo.cost",
    "Dataset": "zoo.data",
    "Evaluation": "zoo.evaluation",
    "Objective": "zoo.training",
    "Packed": "zoo.compression",
    "Receipt": "zoo.compression",
    "Recipe": "zoo.recipes",
    "Row": "zoo.ranking",
    "Run": "zoo.training",
    "compress": "zoo.compression",
    "create_model": "zoo.create",
    "evaluate": "zoo.evaluation",
    "fit": "zoo.training",
    "list_models": "zoo.create",
    "load_dataset": "zoo.data",
    "load_packed": "zoo.compression",
    "measure": "zoo.cost",
    "preprocess": "zoo.data",
    "rank": "zoo.ranking",
    "register": "zoo.registry",
    "save_packed": "zoo.compression",
}


def __getattr__(name: str) -> Any:
    if name in ("errors", "interop"):
        return import_module(f"zoo.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
