"""What workers are told to do: functions that they can import."""

from __future__ import annotations

import os
import time
from pathlib import Path


def double(x: float) -> float:
    """Twice x."""
    return 2 * x


def fail(text: str) -> None:
    """An error."""
    raise ValueError(text)


def die(number: int) -> None:
    """The worker's end."""
    os.kill(os.getpid(), number)
    time.sleep(60)


def die_once(number: int, flag: Path) -> str:
    """The worker's end the first time."""
    if not flag.exists():
        flag.touch()
        die(number)
    return "alive"


def sleep(seconds: float, value: object = None) -> object:
    """A value, later."""
    time.sleep(seconds)
    return value


def log(path: Path, name: str, seconds: float) -> str:
    """Appends a line when it starts and one when it ends."""
    for word in ("starts", "ends"):
        with path.open("a") as file:
            file.write(f"{name} {word} {os.getpid()}\n")
        if word == "starts":
            time.sleep(seconds)
    return name


def leave() -> None:
    """The worker's exit, with a last word."""
    os.write(2, b"a last word\n")
    os._exit(7)


def process() -> int:
    """The worker's number."""
    return os.getpid()


def where(seconds: float, value: object) -> tuple[object, str]:
    """A value, later, and the node of a Ray cluster."""
    import ray

    time.sleep(seconds)
    return value, ray.get_runtime_context().get_node_id()


def say_where(folder: Path) -> None:
    """A file named after the node of a Ray cluster, and then time for somebody to see it."""
    import ray

    (folder / ray.get_runtime_context().get_node_id()).touch()
    time.sleep(5.0)


def resources() -> tuple[dict[str, float], str]:
    """What this task takes of a Ray cluster, and on which node."""
    import ray

    context = ray.get_runtime_context()
    return dict(context.get_assigned_resources()), context.get_node_id()


def rank_and_sum(x: float) -> tuple[int, float]:
    """Which rank this is, and the sum over ranks of x."""
    import torch

    from zonocuda import Ranks

    ranks = Ranks()
    return ranks.rank, float(ranks.sum(torch.tensor(x)))
