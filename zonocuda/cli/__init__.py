"""The command ``zonocuda``."""
