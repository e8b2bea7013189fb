"""A figure within a page: SVG in the colours of the page, light or dark, and in its letters."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from html import escape

import matplotlib as mpl
from matplotlib.figure import Figure

from launch.pages.colours import Pair

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_IDS = re.compile(r'(\bid="|url\(#|href="#)')


def inline_svg(figure: Figure, key: str, label: str, colours: Mapping[str, Pair]) -> str:
    """The figure as an `<svg>` that is as wide as there is room for.

    Args:
        figure: drawn in the light colours of `colours`.
        key: unique on the page: the names within two figures must not meet.
        label: read out to who does not see it.
        colours: by the name of the page's variable.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="none")
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = _IDS.sub(rf"\g<1>{key}-", text)
    size = re.search(r"viewBox=\"[\d .]*\"", text)
    head = f'<svg class="figure" id="{key}" role="img" aria-label="{escape(label)}" {size[0] if size else ""}>'
    text = head + text[text.index(">") + 1 :]
    names = {pair.light.lower(): f"var(--{name})" for name, pair in reversed(list(colours.items()))}
    text = _COLOUR.sub(lambda match: names.get(match[0].lower(), match[0]), text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    return re.sub(r"\n\s*", "\n", text).strip()
