"""Many instances: lists of them, workers that stay warm, results that survive a crash, comparisons and a report.

What the parent process loads from here is light: torch and the verifier are loaded by the workers.
"""

from zonocuda.executors.gang import run_ranks
from zonocuda.executors.local import LocalExecutor
from zonocuda.executors.protocol import Done, Executor
from zonocuda.fleet.instances import Instance, read_instances
from zonocuda.fleet.record import Record
from zonocuda.fleet.runner import run
from zonocuda.fleet.settings import Settings

__all__ = ["Done", "Executor", "Instance", "LocalExecutor", "Record", "Settings", "read_instances", "run", "run_ranks"]
