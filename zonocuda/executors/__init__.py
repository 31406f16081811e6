"""What runs tasks elsewhere: processes of this machine, or a Ray cluster. It knows nothing of what they are about."""

from zonocuda.executors.gang import run_ranks
from zonocuda.executors.local import LocalExecutor
from zonocuda.executors.protocol import Done, Executor, Notice, Shared, WhenLost, WorkerStartError

__all__ = ["Done", "Executor", "LocalExecutor", "Notice", "Shared", "WhenLost", "WorkerStartError", "run_ranks"]
