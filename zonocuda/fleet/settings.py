"""How every instance of a run is verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from zonocuda.functions import resolve_ulp, ulp_text


@dataclass(frozen=True)
class Settings:
    """Arguments of :func:`zonocuda.verify` that all instances share, as plain values.

    Attributes:
        certificates: whether proofs are to leave certificates.
        ulp: what is stated of executed functions, as ``exp=2,tanh=3``.

    Examples:
        >>> Settings(effort="fast").to_json()["effort"]
        'fast'
    """

    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"
    direction: str = "auto"
    memory_budget: int | None = None
    seed: int = 0
    effort: str = "standard"
    semantics: str = "real"
    split: str = "auto"
    certificates: bool = False
    leaf: str = "lp"
    ulp: str = ""

    @staticmethod
    def of(given: dict[str, Any]) -> Settings:
        """The settings of keyword arguments; dtypes and devices may be torch's.

        Raises:
            TypeError: a name that is not known, or a value of another type.
        """
        known = {field.name: field.default for field in fields(Settings)}
        for name, value in given.items():
            if name not in known:
                raise TypeError(f"run: there is no argument {name!r}; verify's are {', '.join(known)}")
            if name == "ulp" and isinstance(value, Mapping):
                given[name] = ulp_text(resolve_ulp(value))
            elif name in ("device", "dtype"):
                given[name] = str(value).removeprefix("torch.")
            elif name == "memory_budget":
                if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                    raise TypeError(f"run: memory_budget must be a positive number of bytes, or None, got {value!r}")
            elif type(value) is not type(known[name]):
                raise TypeError(f"run: {name} must be a {type(known[name]).__name__}, got {value!r}"[:200])
        return Settings(**given)

    @staticmethod
    def of_options(given: Mapping[str, Any], certificates: bool) -> Settings:
        """The settings of a command line's options, which have the same names."""
        names = (field.name for field in fields(Settings) if field.name != "certificates")
        return Settings(**{name: given[name] for name in names}, certificates=certificates)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        return asdict(self)
