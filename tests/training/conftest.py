"""The nursery: children of a process that has torch imported."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # scenarios.py, for the tests as for the nursery

import scenarios

ROOT = Path(__file__).parents[2]


@dataclass
class Births:
    """How the children of one request ended."""

    statuses: list[int]
    folder: Path

    def answer(self, rank: int = 0) -> Any:
        """What a child's scenario returned."""
        return json.loads((self.folder / f"answer.{rank}.json").read_text())

    def output(self, rank: int = 0) -> str:
        """What a child wrote to stdout and stderr."""
        return (self.folder / f"out.{rank}").read_text()


class Nursery:
    """Runs scenarios in children of one process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def run(
        self,
        scenario: str,
        at: Path,
        *,
        count: int = 1,
        limit: int = 90,
        kill_after: float | None = None,
        environment: dict[str, str] | None = None,
        **arguments: Any,
    ) -> Births:
        """Run scenarios.<scenario>(**arguments) in `count` children whose current folder is `at`."""
        at.mkdir(parents=True, exist_ok=True)
        request = {
            "scenario": scenario,
            "arguments": arguments,
            "count": count,
            "limit": limit,
            "kill_after": kill_after,
            "environment": environment or {},
            "folder": str(at),
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Births(json.loads(self.process.stdout.readline()), at)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Children that cost a tenth of a second each."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(Path(__file__).with_name("nursery.py"))]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    ) as process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module", autouse=True)
def single_thread() -> Iterator[None]:
    """One thread, here as in the children; for a whole module, so that what its tests share is made with one too."""
    with scenarios.one_thread():
        yield
