"""Rules that hold for the whole source, read from its syntax: nothing unpickles or runs data, imports go one way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [*sorted((ROOT / "zoo").rglob("*.py")), ROOT / "train.py"]

# From the bottom up; a module may import from its own line and from those above it in this list. Packages count whole.
LAYERS = (
    ("console", "errors", "files", "strict", "tensorfile", "registry", "layers", "conditions"),
    ("models", "data", "recipes"),
    ("evaluation", "training", "cost"),
    ("cards", "weights", "interop", "compression", "dynamic", "latency", "winograd"),
    ("create",),
    ("trained", "teachers"),
    ("ranking", "report", "prediction"),
    (
        "runs",
        "compress_runs",
        "export_runs",
        "latency_runs",
        "report_runs",
        "train_cli",
        "cli",
        "train",
        "__main__",
        "__init__",
    ),
)
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}

BANNED_MODULES = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
BANNED_CALLS = {"eval", "exec", "__import__"}
BANNED_NAMES = {"torch.load", "torch.save", "torch.hub.load_state_dict_from_url", "builtins.eval", "builtins.exec"}
HEAVY = ("torchvision", "timm", "fvcore", "matplotlib", "sklearn", "onnx", "rich", "typer")


def imports(tree: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """(module, name taken from it or "") of every import, at any depth; relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def unsafe(source: str) -> list[str]:
    """What a source does that is banned, a line each."""
    tree = ast.parse(source)
    found = []
    for module, name in imports(tree, "zoo"):
        if module.split(".")[0] in BANNED_MODULES or f"{module}.{name}" in BANNED_NAMES or name == "*":
            found.append(f"imports {name or module} of {module}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BANNED_CALLS:
            found.append(f"line {node.lineno} calls {node.func.id}")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in BANNED_NAMES:
            found.append(f"line {node.lineno} uses {ast.unparse(node)}")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append(f"line {node.value.lineno} allows pickles")
    return found


def unit_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "zoo" else parts[0]


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def used_units(source: str, package: str) -> set[str]:
    """Units of the package that a source imports."""
    units = set()
    for module, name in imports(ast.parse(source), package):
        if module == "zoo":
            units.add(name if name in LEVEL else "__init__")
        elif module.startswith("zoo."):
            units.add(module.split(".")[1])
    return units


def upward(source: str, unit: str, package: str = "zoo") -> list[str]:
    """Units that `unit` may not import but does."""
    return [used for used in sorted(used_units(source, package)) if LEVEL.get(used, len(LAYERS)) > LEVEL[unit]]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_unpickled_or_run(path: Path) -> None:
    assert unsafe(path.read_text()) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    unit = unit_of(path)
    assert unit in LEVEL, f"give {unit!r} its place in LAYERS"
    assert upward(path.read_text(), unit, package_of(path)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "zoo" / "models").glob("[a-z]*.py")), ids=name_of)
def test_no_family_imports_another(path: Path) -> None:
    modules = {module for module, _ in imports(ast.parse(path.read_text()), "zoo.models")}
    assert not [module for module in modules if module.startswith("zoo.models")]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from pickle import loads",
        "import marshal, json",
        "import torch\ntorch.load('x')",
        "import torch as t\nfrom torch import save",
        "f = torch.save",
        "eval('1')",
        "def f(x):\n    exec(x)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "from zoo.errors import *",
        "torch.hub.load_state_dict_from_url('x')",
    ],
)
def test_the_ban_sees(source: str) -> None:
    assert len(unsafe(source)) == 1


def test_the_ban_lets_pass_what_only_looks_alike() -> None:
    assert unsafe("model.eval()\nnp.load(path, allow_pickle=False)\nfrom safetensors.torch import save") == []


@pytest.mark.parametrize(
    ("source", "unit", "package"),
    [
        ("from zoo.weights import Card", "cost", "zoo"),
        ("def f():\n    import zoo.cli", "report", "zoo"),
        ("from zoo import create", "weights", "zoo"),
        ("from .models import lenet", "registry", "zoo"),
        ("from ..training import fit", "data", "zoo.data"),
        ("import zoo", "create", "zoo"),
        ("from zoo.unheard_of import x", "cli", "zoo"),
    ],
)
def test_the_walk_sees(source: str, unit: str, package: str) -> None:
    assert len(upward(source, unit, package)) == 1


@pytest.mark.slow
def test_importing_the_package_imports_no_heavy_library() -> None:
    code = f"""
import sys
import zoo, zoo.create, zoo.weights, zoo.tensorfile
print(sorted(name for name in {HEAVY!r} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
