"""Specifications: what is to be proven, from Python or from VNN-LIB files."""

from zonocuda.specs.spec import Box, LinearConstraint, Region, Spec
from zonocuda.specs.vnnlib import VnnlibError, load_vnnlib

__all__ = ["Box", "LinearConstraint", "Region", "Spec", "VnnlibError", "load_vnnlib"]
