"""Numbers and sizes of views that make no sense: refused in words, at the key that has to change."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ConfigError
from tests.pipeline.small import small_config

TWO_SIZES = {"views": [{"count": 2}, {"count": 2, "size": 8}]}
GROWING = {"progressive": {"start_size": 8, "end_epoch": 2}}
PATCH = {"kind": "simclr", "negatives": "single_patch"}
VIT = {"backbone": "vit_b_16", "patch_size": 4, "hidden_dim": 24, "num_layers": 2, "num_heads": 2}
FIXED = {"backbone": "tests.pipeline.validation.test_views:fixed", "output": "3", "cuts": ["1"]}
WIDE = {"backbone": "tests.pipeline.validation.test_views:wide", "output": "1", "cuts": ["0"]}


def fixed() -> Any:
    """A network that takes images of 16 pixels only."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 4, 2, stride=2), nn.Flatten(2), nn.Linear(64, 32), nn.Unflatten(2, (4, 8)), nn.ReLU()
    )


def wide() -> Any:
    """A network whose maps are not square."""
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=(2, 1)), nn.Conv2d(4, 4, 3))


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("data.views", r"got one view, .*\. Give two views or more$", {"data": {"views": [{}]}}),
    ("data.views.0.count", r"greater than or equal to 1|greater than 0", {"data": {"views": [{"count": 0}]}}),
    ("data.views.0.size", r"greater than or equal to 8", {"data": {"views": [{"size": 4}, {}]}}),
    ("data.views.0.sizes", r"unknown key", {"data": {"views": [{"sizes": 8}]}}),
    ("data.views.1.crop_scale", r"got \[0\.5, 0\.1\]", {"data": {"views": [{}, {"crop_scale": [0.5, 0.1]}]}}),
    (
        "data.views.1.size",
        r"got 8, and the first two views have the 16 pixels of data\.image_size\. Leave it out, or change",
        {"data": {"views": [{}, {"size": 8}, {}]}},
    ),
    (
        "data.views.0.size",
        r"got 12, and the first two views have the 16 pixels",
        {"data": {"views": [{"count": 2, "size": 12}, {"size": 8}]}},
    ),
    (
        "data.views.1.size",
        r"got 24, more than the 16 pixels of data\.image_size, .*\. Give at most 16, or a larger data\.image_size$",
        {"data": {"views": [{"count": 2}, {"size": 24}]}},
    ),
    (
        "data.views",
        r"got 4 views, and the loss with objective\.negatives=single_patch compares two\. Give objective\.neg",
        {"data": {"views": [{"count": 4}]}, "stages": {"2": {"objective": PATCH}}},
    ),
    (
        "data.progressive.start_size",
        r"got 16, and the views grow to the 16 pixels .*Give 8 to 15, or leave data\.progressive out",
        {"data": {"progressive": {"start_size": 16, "end_epoch": 1}}},
    ),
    (
        "data.progressive.end_epoch",
        r"got 2, and the ramp begins at start_epoch=2\. Give 3 or more",
        {"data": {"progressive": {"start_size": 8, "start_epoch": 2, "end_epoch": 2}}},
    ),
    (
        "data.progressive.end_epoch",
        r"got 4, and the run has 3 epochs.*Give at most train\.epochs=3",
        {"data": {"progressive": {"start_size": 8, "end_epoch": 4}}},
    ),
    ("data.progressive", r"mode sequential.*only the first", {"data": GROWING, "mode": "sequential"}),
    ("data.views", r"vit_b_16 has position embeddings for 16 pixels, .* have 8\.", {"data": TWO_SIZES, "model": VIT}),
    ("data.progressive", r"vit_b_16 has position .* 8, 12\. Give all", {"data": GROWING, "model": VIT}),
    ("data.progressive", r"for views of 8 pixels, .*:fixed fails on images", {"data": GROWING, "model": FIXED}),
    ("data.views", r"for views of 8 pixels, .*:fixed fails on images", {"data": TWO_SIZES, "model": FIXED}),
    (
        "link.codec",
        r"'int8' has a scale for each channel.*Give bf16, fp16 or none, or data\.views of one size",
        {"data": TWO_SIZES, "link": {"codec": "int8"}},
    ),
    (
        "link.codec",
        r"'int8' needs square maps where views grow, and stage 1 gives 3x6\.",
        {"data": GROWING, "link": {"codec": "int8"}, "model": WIDE},
    ),
    (
        "head.grid",
        r"a grid of 2x2 does not fit the 1x1 output of stage 4 for views of 8 pixels\. Give at most 1",
        {"data": TWO_SIZES, "head": {"kind": "lsp", "grid": 2}},
    ),
    (
        "noise.kind",
        r"'hw' takes a standard deviation over pixels, and the output of stage 4 for views of 8 pixels is 1x1",
        {"data": TWO_SIZES, "noise": {"kind": "hw"}},
    ),
]


@pytest.mark.parametrize(("path", "message", "sections"), CASES, ids=[f"{n} {c[0]}" for n, c in enumerate(CASES)])
def test_refused(path: str, message: str, sections: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        small_config(**sections)
    assert refused.value.path == path


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"views": [{}, {}]}, "objective": PATCH},
        {"data": {"views": [{"count": 2, "size": 16}, {"count": 6, "size": 8}]}},
        {"data": {"views": [{"count": 4}]}, "model": VIT},
        {"data": {"views": [{"count": 4}]}, "model": FIXED},
        {"data": {**TWO_SIZES, **GROWING}, "link": {"codec": "bf16"}},
        {"data": GROWING, "link": {"codec": "int8"}},
        {"data": GROWING, "objective": PATCH},
        {"data": GROWING, "model": WIDE},
        {"data": {"progressive": {"start_size": 8, "end_epoch": 3}}, "head": {"kind": "lsp", "grid": 1}},
    ],
    ids=str,
)
def test_taken(sections: dict[str, Any]) -> None:
    assert small_config(**sections).num_views >= 2
