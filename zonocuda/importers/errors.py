"""What can go wrong when a network is read."""

from __future__ import annotations

from typing import NoReturn


class UnsupportedNetworkError(ValueError):
    """The network holds an operator, an attribute or a use of the batch that the graph cannot express."""


class BatchError(UnsupportedNetworkError):
    """The network does something with its batch that the graph's features, which leave it out, cannot express."""


class NetworkFileError(ValueError):
    """The file is missing, unreadable, corrupt, not an ONNX model, or holds weights that are not finite."""


class NetworkMismatchError(ValueError):
    """The imported graph and the network it was imported from disagree beyond rounding."""


class NetworkOverflowError(NetworkMismatchError):
    """The network itself computes an infinity or a NaN, so that it cannot be compared with its graph."""


def refuse(reason: str) -> NoReturn:
    """Raise ``UnsupportedNetworkError``; the caller that knows the node's name adds it."""
    raise UnsupportedNetworkError(reason)


def refuse_batch(reason: str) -> NoReturn:
    """Raise ``BatchError``, as :func:`refuse` does."""
    raise BatchError(reason)


def located(place: str, error: UnsupportedNetworkError) -> UnsupportedNetworkError:
    """A refusal with the place where it occurred, which is the subject of a reason that begins with a verb."""
    separator = " " if str(error).startswith("is ") else ": "
    return type(error)(f"{place}{separator}{error}")


def one_line(error: BaseException, length: int = 300) -> str:
    """An error's message on one line, cut to ``length`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length]}..."
