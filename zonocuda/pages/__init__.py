"""Pages of HTML that need no other file and no network: their frame, their style, and drawings."""

from zonocuda.pages.document import document, meanings

__all__ = ["document", "meanings"]
