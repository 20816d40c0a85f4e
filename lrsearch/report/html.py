"""Figures inside one HTML document that needs no network: assets inlined, text escaped."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
"""What the page may do: nothing from, and nothing to, any other place."""


def escape(text: object) -> str:
    """Text for HTML, also inside attributes."""
    return html.escape(str(text), quote=True)


def to_html(markdown: str) -> str:
    """**bold** and `code` as HTML, everything else escaped."""
    text = html.escape(markdown)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


def breakable(text: str) -> str:
    """HTML whose long names may break between their words: CosineAnnealing|WarmRestarts."""

    def parts(name: re.Match[str]) -> str:
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "<wbr>", name[0])

    return re.sub(r"\w{18,}", parts, text)


def as_json(value: Any) -> str:
    """JSON that may stand inside a script element, whatever strings are in it."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    for char, code in (("<", "003c"), (">", "003e"), ("&", "0026"), ("\u2028", "2028")):
        text = text.replace(char, f"\\u{code}")
    return text.replace("\u2029", "\\u2029")


@cache
def asset(name: str) -> str:
    """The text of a file in ``assets``."""
    return files("lrsearch.report").joinpath("assets", name).read_text(encoding="utf-8")


def in_notebook(body: str) -> str:
    """A piece of the page inside a notebook, which has styles of its own."""
    style = (
        ".lrsearch .mark{width:14px;height:14px;margin-right:6px}"
        ".lrsearch .spark{width:120px;height:30px}"
    )
    return f'<div class="lrsearch"><style>{style}</style>{body}</div>'


def figure(name: str, figure: Figure, label: str) -> str:
    """A figure as a drawing place and its data.

    Args:
        name: Its id, letters and dashes.
        figure: What to draw; its template is left out.
        label: What a screen reader says.
    """
    import plotly.graph_objects as go

    figure.update_layout(template=go.layout.Template())
    height = int(figure.layout.height or 400)
    return (
        f'<div class="plot" id="{name}" role="img" aria-label="{escape(label)}" '
        f'style="height:{height}px"></div>'
        f'<script type="application/json" data-plot="{name}">{as_json(figure.to_json())}</script>'
    )


def document(title: str, body: str, *, scripts: Iterable[str] = (), kind: str = "") -> str:
    """A whole page.

    Args:
        title: Of the window.
        body: HTML, already escaped.
        scripts: Names of further script assets.
        kind: Class of the body element.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta name="generator" content="lrsearch"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{asset('page.css')}</style></head>"
        f'<body class="{kind}">{body}{_code(tuple(scripts))}</body></html>\n'
    )


@cache
def _code(scripts: tuple[str, ...]) -> str:
    """The script elements of a page; plotly's own program has five megabytes."""
    from plotly.offline import get_plotlyjs

    texts = (get_plotlyjs(), asset("plots.js"), *map(asset, scripts))
    return "".join(f"<script>{text}</script>" for text in texts)
