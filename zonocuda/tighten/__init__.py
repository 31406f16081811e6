"""Slopes that learn, and bounds that are refined with them."""
