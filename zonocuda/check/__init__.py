"""A verdict checked again, by another way: see :mod:`zonocuda.check.check`."""

from zonocuda.check.certificate import CertificateError
from zonocuda.check.check import Checked, check

__all__ = ["CertificateError", "Checked", "check"]
