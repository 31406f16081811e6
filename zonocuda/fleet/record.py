"""What is known of an instance when it has ended: a line of ``results.jsonl``."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from zonocuda.fleet.instances import Instance
from zonocuda.fleet.settings import Settings
from zonocuda.version import __version__

SCHEMA = "zonocuda.run/1"
ERROR = "error"
VERDICTS = ("verified", "falsified", "unknown", "timeout", ERROR)
"""In the order in which summaries name them."""


@dataclass(frozen=True)
class Job:
    """An instance, and all that its result depends on.

    Attributes:
        instance: the files.
        timeout: seconds, None for no limit.
        net_sha256, spec_sha256: digests of the files' content.
        settings: how it is verified.
    """

    instance: Instance
    timeout: float | None
    net_sha256: str
    spec_sha256: str
    settings: Settings

    @property
    def key(self) -> str:
        """Equal for two jobs only if everything is equal."""
        files = [*self.instance.names, self.net_sha256, self.spec_sha256]
        parts = [*files, self.timeout, self.settings.to_json(), __version__]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """A name for the job's files, which no other has."""
        stems = (re.sub(r"[^A-Za-z0-9]+", "-", name.rsplit("/", 1)[-1].split(".")[0])[:60] for name in self.names)
        return "__".join([*stems, self.key[:12]])

    @property
    def names(self) -> tuple[str, str]:
        """How the list calls the network and the property."""
        return self.instance.names


@dataclass(frozen=True)
class Record:
    """The outcome of an instance.

    Attributes:
        key: of the job that it is the outcome of.
        name: of its files in the folder of results.
        net, spec: how the list calls the files.
        net_sha256, spec_sha256: what they held.
        timeout: the seconds that were allowed; None for no limit.
        options: how it was verified.
        verdict: ``verified``, ``falsified``, ``unknown`` or ``timeout``; ``error`` where it could not be run.
        reason: one line that says why.
        meaning: what the verdict speaks of; empty for an error.
        margin: the smallest bound of a row; None where none was bounded.
        seconds: what it took, without what reading the files took, which is ``loading``.
        phases: seconds of each phase of the verification.
        splits: of each region that was split, how far that went.
        lost: why attempts before this one ended.
        files: by kind (``result``, ``counterexample``, ``certificate``), paths in the folder of results.
        finished: when, in seconds since 1970.
        version: of zonocuda.
    """

    key: str
    name: str
    net: str
    spec: str
    net_sha256: str
    spec_sha256: str
    timeout: float | None
    options: Mapping[str, Any]
    verdict: str
    reason: str
    meaning: str = ""
    margin: float | None = None
    seconds: float = 0.0
    loading: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)
    splits: Sequence[Mapping[str, Any]] = ()
    lost: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    finished: float = 0.0
    version: str = __version__

    @property
    def has_verdict(self) -> bool:
        """Whether it was run at all, whatever came out."""
        return self.verdict != ERROR

    @property
    def is_decided(self) -> bool:
        """Whether it was proven or refuted."""
        return self.verdict in ("verified", "falsified")

    def line(self) -> str:
        """One line of JSON, with its end."""
        entry = {"schema": SCHEMA, **asdict(self)}
        if self.margin is not None and not math.isfinite(self.margin):
            entry["margin"] = str(self.margin)
        return json.dumps(entry, allow_nan=False) + "\n"

    @staticmethod
    def of_line(line: str) -> Record:
        """What :meth:`line` wrote; fields that are not known are left out.

        Raises:
            ValueError: something else.
        """
        entry = json.loads(line, parse_constant=_refuse)
        if not isinstance(entry, dict) or entry.get("schema") != SCHEMA:
            raise ValueError(f"is no {SCHEMA}")
        known = {f.name: entry[f.name] for f in fields(Record) if f.name in entry}
        _check(known)
        if isinstance(known.get("margin"), str):
            known["margin"] = float(known["margin"])
        return Record(**known)


_TEXTS = ("key", "name", "net", "spec", "net_sha256", "spec_sha256", "verdict", "reason", "meaning", "version")
_MAPS = ("options", "phases", "files")
_LISTS = ("splits", "lost")


def _check(entry: Mapping[str, Any]) -> None:
    """Refuses a line that somebody else wrote: its names become paths, and its numbers a page."""
    absent = [f for f in (*_TEXTS[:8], "timeout", "options") if f not in entry]
    wrong = [f for f in _TEXTS if not isinstance(entry.get(f, ""), str)]
    wrong += [f for f in _MAPS if not isinstance(entry.get(f, {}), dict)]
    wrong += [f for f in _LISTS if not isinstance(entry.get(f, []), list)]
    wrong += [f for f in ("seconds", "loading", "finished") if not _is_number(entry.get(f, 0.0))]
    wrong += [f for f in ("timeout",) if entry.get(f) is not None and not _is_number(entry[f])]
    wrong += [f for f in ("phases",) if f not in wrong and not all(map(_is_number, entry.get(f, {}).values()))]
    wrong += [
        f for f in ("files",) if f not in wrong and not all(isinstance(p, str) for p in entry.get(f, {}).values())
    ]
    wrong += [f for f in ("splits",) if f not in wrong and not all(isinstance(s, dict) for s in entry.get(f, ()))]
    margin = entry.get("margin")
    if margin is not None and not _is_number(margin) and margin not in ("nan", "inf", "-inf"):
        wrong.append("margin")
    if "verdict" not in wrong and entry.get("verdict") not in VERDICTS:
        wrong.append("verdict")
    if absent or wrong:
        raise ValueError(f"lacks {absent[0]}" if absent else f"{wrong[0]} is something else")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
