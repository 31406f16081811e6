"""A worker: a process that is told what to call, and answers."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from zonocuda.executors.protocol import Shared

_PATIENCE = 0.5
"""Seconds between two looks at whether the parent lives."""


def serve(descriptor: int, parent: int) -> None:
    """Answers tasks until the parent hangs up or dies.

    Args:
        descriptor: of the socket to the parent.
        parent: its process id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(descriptor, False)
    faulthandler.enable()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    shared: dict[int, object] = {}
    connection = Connection(descriptor)
    try:
        prepare = receive(connection)
        prepare()
        send(connection, ("ready",))
        while True:
            kind, number, *content = receive(connection)
            if kind == "put":
                (shared[number],) = content
                continue
            function, arguments = content
            send(connection, ("done", number, *call(function, arguments, shared)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the parent has hung up


def send(connection: Connection[Any, Any], message: object) -> None:
    """Sends a message, pickled as it is: tensors, too, which :mod:`multiprocessing` would have in memory that
    processes of one family share."""
    connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def receive(connection: Connection[Any, Any]) -> Any:
    """The next message."""
    return pickle.loads(connection.recv_bytes())


def call(function: Any, arguments: tuple[object, ...], shared: dict[int, object]) -> tuple[str, object]:
    """An error, else empty, and a value."""
    try:
        given = [shared[a.number] if isinstance(a, Shared) else a for a in arguments]
        return "", function(*given)
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000], None


def _end_with(parent: int) -> None:
    """Ends this process when its parent has ended, whatever it is at."""
    while os.getppid() == parent:
        time.sleep(_PATIENCE)
    os._exit(1)
