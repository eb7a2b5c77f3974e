"""Runs scripts of the page in node, for the tests of the page; where there is no node these are skipped."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "zoo" / "report" / "page"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed, so the page's scripts cannot be run")


def run_script(script: str, module: str, given: Any) -> Any:
    """What a script of tests/page says of a module of the page."""
    command = [str(NODE), str(ROOT / "tests" / "page" / script), str(PAGE / module)]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def call(module: str, function: str, *arguments: Any) -> Any:
    """What one function of a module returns."""
    return run_script("call.mjs", module, [[function, *arguments]])[0]
