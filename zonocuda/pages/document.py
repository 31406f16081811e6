"""The frame of a page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from zonocuda.pages.style import STYLE
from zonocuda.version import __version__

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def document(title: str, headline: str, body: Iterable[str], script: str = "") -> str:
    """A whole page.

    Args:
        title: text.
        headline: text; what there is to know, in a sentence or two.
        body: HTML.
        script: a program, of this package alone.
    """
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>',
        f'<h1>{escape(title)}</h1><p class="headline">{escape(headline)}</p>',
        *body,
        f"<footer>zonocuda {escape(__version__)}</footer>",
        f"<script>{script}</script>" if script else "",
        "</body></html>\n",
    ]
    return "".join(parts)


def meanings(entries: Iterable[tuple[str, str]]) -> str:
    """What words mean; those that are classes of the style have its colour."""
    pairs = (
        f'<dt class="{escape(word.replace(" ", "-"))}">{escape(word)}</dt><dd>{escape(meaning)}</dd>'
        for word, meaning in entries
    )
    return f"<dl>{''.join(pairs)}</dl>"
