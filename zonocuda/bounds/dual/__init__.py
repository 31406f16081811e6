"""Rows carried backward from specifications and neurons to the input."""
