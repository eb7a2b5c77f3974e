"""Runs in processes of their own, cheaply: this one has torch and the trainer imported, and forks for every request.

A request is one line of JSON on stdin, its answer one line on stdout: the exit status of each child, minus the number
of the signal that ended it. It is started by the fixture `nursery`; nothing is computed here, so no thread exists that
a fork could break.

count: children, one for each rank. kill_after: seconds after which all get a SIGKILL. limit: seconds after which
SIGALRM ends a child, so that nothing hangs for ever. Each child's output is in `<folder>/out.<rank>`, what its scenario
returned in `<folder>/answer.<rank>.json`.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import scenarios
import torch
import torch._dynamo  # what a data-parallel model imports when it is made
import torch.nn.parallel


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)


def serve(request: dict[str, Any]) -> list[int]:
    port = free_port()
    children = []
    for rank in range(request["count"]):
        child = os.fork()
        if child == 0:
            be_born(request, rank, port)
        children.append(child)
    if request["kill_after"] is not None:
        time.sleep(request["kill_after"])
        for child in children:
            os.kill(child, signal.SIGKILL)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def be_born(request: dict[str, Any], rank: int, port: int) -> None:
    """Run one child to its end; never returns."""
    status = 1
    try:
        folder = Path(request["folder"])
        output = os.open(folder / f"out.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.alarm(request["limit"])
        os.chdir(folder)
        os.environ.update(request["environment"])
        if request["count"] > 1:
            world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": request["count"], "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in world.items()}, MASTER_ADDR="127.0.0.1")
        torch.set_num_threads(1)
        answer = getattr(scenarios, request["scenario"])(**request["arguments"])
        (folder / f"answer.{rank}.json").write_text(json.dumps(answer))
        status = answer if isinstance(answer, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
