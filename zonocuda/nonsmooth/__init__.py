"""Derivatives at ties are a choice: ops with a chosen one, and an audit of where a model depends on it.

:mod:`zonocuda.nonsmooth.functional` and the modules (``ReLU``, ``MaxPool2d``, ...) have torch's values and the
derivative that is asked for; ``replace`` puts them into a model; ``audit`` finds the ties of a model and what the
choice there changes; :mod:`zonocuda.nonsmooth.programs` has programs that are zero and have a derivative.
"""

from zonocuda.nonsmooth.audit import audit
from zonocuda.nonsmooth.conventions import OTHER, TORCH, Convention
from zonocuda.nonsmooth.functional import abs, leaky_relu, max, max_pool2d, maximum, relu
from zonocuda.nonsmooth.modules import Abs, LeakyReLU, Max, Maximum, MaxPool2d, ReLU, replace
from zonocuda.nonsmooth.page import html_page
from zonocuda.nonsmooth.results import AuditReport, Certificate, DtypeReport, LayerReport
from zonocuda.nonsmooth.slopes import SlopeAudit, SlopeReport, audit_slopes

__all__ = [
    "OTHER",
    "TORCH",
    "Abs",
    "AuditReport",
    "Certificate",
    "Convention",
    "DtypeReport",
    "LayerReport",
    "LeakyReLU",
    "Max",
    "MaxPool2d",
    "Maximum",
    "ReLU",
    "SlopeAudit",
    "SlopeReport",
    "abs",
    "audit",
    "audit_slopes",
    "html_page",
    "leaky_relu",
    "max",
    "max_pool2d",
    "maximum",
    "relu",
    "replace",
]
