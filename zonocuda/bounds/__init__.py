"""Bounds of a network's values: the sweep, the dual pass, what they cost and what their rounding costs."""
