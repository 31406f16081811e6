"""Zonotopes carried from the input to the output."""
