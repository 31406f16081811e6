"""A verdict checked again, by another way: see :mod:`zonocuda.checker.verdict`."""

from importlib.util import find_spec

if find_spec("flint") is None:
    raise ImportError("zonocuda check needs python-flint, which is not installed: pip install 'zonocuda[check]'")

from zonocuda.checker.certificate import CertificateError
from zonocuda.checker.verdict import Checked, check, check_proof

__all__ = ["CertificateError", "Checked", "check", "check_proof"]
