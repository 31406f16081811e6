"""Tasks that run at the same time and know one another: the ranks of a group of torch.distributed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from zonocuda.executors.protocol import Executor

FAULT = "fault"
"""Where the first rank that fails says why."""


def run_ranks(
    executor: Executor,
    size: int,
    function: Callable[..., Any],
    *arguments: object,
    backend: str = "gloo",
    patience: float = 1800.0,
) -> list[Any]:
    """Calls a function on ``size`` ranks at once, in an executor's workers, as ``torchrun`` does with a script.

    In each of them :mod:`torch.distributed` is started before the call, and ended behind it.

    Args:
        executor: local processes, or a Ray cluster.
        size: how many ranks; no more than the executor runs tasks at once.
        function: what each rank calls; one that a worker can import.
        arguments: of the function.
        backend: of torch.distributed: ``gloo``, or ``nccl`` on GPUs.
        patience: seconds that a rank waits for the others.

    Returns:
        What each rank returned, in their order.

    Raises:
        ValueError: more ranks than the executor has workers.
        RuntimeError: a rank failed or was lost; the others are stopped.

    Examples:
        >>> from torch.distributed import get_rank
        >>> with LocalExecutor(2) as executor:
        ...     run_ranks(executor, 2, get_rank)
        [0, 1]
    """
    if not 1 <= size <= executor.workers:
        raise ValueError(
            f"run_ranks: {size} ranks need as many workers at once, and the executor has {executor.workers}"
        )
    import torch.distributed as dist

    store = dist.TCPStore(  # type: ignore[attr-defined]
        executor.address, 0, is_master=True, wait_for_workers=False
    )
    meeting = (executor.address, store.port, size, backend, patience)
    ranks = {
        executor.submit(run_rank, rank, meeting, function, arguments, when_lost="end"): rank for rank in range(size)
    }
    found: dict[int, Any] = {}
    try:
        for done in executor.as_completed():
            if done.task not in ranks:
                continue
            if done.error:
                why = store.get(FAULT).decode() if store.check([FAULT]) else f"rank {ranks[done.task]}: {done.error}"
                raise RuntimeError(f"run_ranks: {why}")
            found[ranks[done.task]] = done.value
    finally:
        for task, rank in ranks.items():
            if rank not in found:
                executor.cancel(task)
    return [found[rank] for rank in range(size)]


def run_rank(
    rank: int, meeting: tuple[str, int, int, str, float], function: Callable[..., Any], arguments: tuple[object, ...]
) -> Any:
    """One rank, in a worker: meets the others at the store of ``meeting``, and calls the function."""
    import torch.distributed as dist

    address, port, size, backend, patience = meeting
    wait = timedelta(seconds=patience)
    store = dist.TCPStore(address, port, is_master=False, timeout=wait)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=wait)
    try:
        return function(*arguments)
    except Exception as error:
        if store.add(FAULT + "s", 1) == 1:  # the others' will be that this one has gone
            store.set(FAULT, f"rank {rank}: {type(error).__name__}: {' '.join(str(error).split())}"[:2000])
        raise
    finally:
        dist.destroy_process_group()
