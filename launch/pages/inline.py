"""A figure as inline SVG, in the page's colours and font."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import matplotlib as mpl
from markupsafe import Markup

from launch.pages.charts import Picture
from launch.pages.colours import ColourPair

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_IDS = re.compile(r'(\bid="|url\(#|href="#)')


@dataclass(frozen=True)
class InlineFigure:
    """A picture as inline SVG.

    Args:
        key, title, caption, wide: see `Picture`.
        view_box: attribute of its `<svg>`.
        body: the contents of its `<svg>`; matplotlib has escaped their text.
    """

    key: str
    title: str
    caption: str
    wide: bool
    view_box: str
    _: KW_ONLY
    body: Markup


def inline(picture: Picture, colours: Mapping[str, ColourPair]) -> InlineFigure:
    """Convert a picture that is drawn in the light colours of `colours`, which are by the page's CSS variable names.

    Its key becomes a prefix of all ids, so that those of two figures do not collide.
    """
    buffer, key = io.StringIO(), picture.key
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        picture.figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="none")
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = _IDS.sub(rf"\g<1>{key}-", text)
    box = re.search(r"viewBox=\"([\d .]*)\"", text)
    text = text[text.index(">") + 1 : text.rindex("</svg>")]
    names = {pair.light.lower(): f"var(--{name})" for name, pair in reversed(list(colours.items()))}
    text = _COLOUR.sub(lambda match: names.get(match[0].lower(), match[0]), text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    body = Markup(re.sub(r"\n\s*", "\n", text).strip())
    return InlineFigure(key, picture.title, picture.caption, picture.wide, box[1] if box else "", body=body)
