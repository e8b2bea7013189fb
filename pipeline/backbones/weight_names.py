"""The names that other libraries give to the weights of a backbone, as one table of rules for each family.

Ours are torchvision's names, of the whole network; those of a head are `stages.K.head.NAME`, of block K. A rule pairs a
pattern of ours with one of theirs. In both, `{n}` stands for a number and `{leaf}` for the last word of a name; `{n-1}`
is the number less one. Where a rule has several patterns of theirs, our tensor is theirs one above the other (dimension
0). Every rule can be read from either side, so no name is lost (`tests/pipeline/backbones/test_weight_names.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

Family = Literal["resnet", "vit", "module"]
Pattern = str
Rules = tuple[tuple[Pattern, Pattern | tuple[Pattern, ...]], ...]

_UNIT = "layer{n}.{m}"
_RESNET = (
    "conv1.weight",
    "bn1.{leaf}",
    f"{_UNIT}.conv{{i}}.weight",
    f"{_UNIT}.bn{{i}}.{{leaf}}",
    f"{_UNIT}.downsample.0.weight",
    f"{_UNIT}.downsample.1.{{leaf}}",
)
_HF_UNIT = "encoder.stages.{n-1}.layers.{m}"
_LAYER = "encoder.layers.encoder_layer_{n}"
_VIT = (
    "class_token",
    "conv_proj.{leaf}",
    "encoder.pos_embedding",
    f"{_LAYER}.ln_1.{{leaf}}",
    f"{_LAYER}.self_attention.in_proj_weight",
    f"{_LAYER}.self_attention.in_proj_bias",
    f"{_LAYER}.self_attention.out_proj.{{leaf}}",
    f"{_LAYER}.ln_2.{{leaf}}",
    f"{_LAYER}.mlp.0.{{leaf}}",
    f"{_LAYER}.mlp.3.{{leaf}}",
    "encoder.ln.{leaf}",
)
_HF_PARTS = ("attention.o_proj", "mlp.fc1", "mlp.fc2")
_HF4_PARTS = ("attention.output.dense", "intermediate.dense", "output.dense")


@dataclass(frozen=True)
class Names:
    """The names of one library for the backbones of one family.

    Args:
        title: the library, for people.
        rules: ours and theirs.
        anchors: the names of theirs that come first; what precedes one of them in a file is a prefix of all names.
        classifier: names of theirs that no backbone has, which are left out without a word of complaint.
    """

    title: str
    rules: Rules
    anchors: tuple[str, ...]
    classifier: tuple[str, ...] = ()


def _same(patterns: Iterable[Pattern]) -> Rules:
    return tuple((pattern, pattern) for pattern in patterns)


def _released(backbone: str) -> Rules:
    """`backbone` is what precedes the names of the network in the released code's checkpoint."""
    trunk = tuple((pattern, f"{backbone}{pattern}") for pattern in _RESNET)
    return (
        *trunk,
        ("stages.{k}.head.expansion.{i}.{leaf}", f"{backbone}pool_conv_block_{{k}}.{{i}}.{{leaf}}"),
        ("stages.{k}.head.projector.{i}.{leaf}", "projector_list.{k-1}.{i}.{leaf}"),
    )


def _transformers_vit(
    title: str, layer: str, projection: str, projections: Iterable[str], parts: tuple[str, str, str]
) -> Names:
    """Names of its ViT, which differ within a layer: those of the attention's three inputs, then of its linear maps."""
    qkv = [f"{layer}.{projection.replace('{part}', part)}" for part in projections]
    out, *mlp = (f"{layer}.{part}.{{leaf}}" for part in parts)
    return Names(
        title,
        (
            ("class_token", "embeddings.cls_token"),
            ("conv_proj.{leaf}", "embeddings.patch_embeddings.projection.{leaf}"),
            ("encoder.pos_embedding", "embeddings.position_embeddings"),
            (f"{_LAYER}.ln_1.{{leaf}}", f"{layer}.layernorm_before.{{leaf}}"),
            (f"{_LAYER}.self_attention.in_proj_weight", tuple(f"{name}.weight" for name in qkv)),
            (f"{_LAYER}.self_attention.in_proj_bias", tuple(f"{name}.bias" for name in qkv)),
            (f"{_LAYER}.self_attention.out_proj.{{leaf}}", out),
            (f"{_LAYER}.ln_2.{{leaf}}", f"{layer}.layernorm_after.{{leaf}}"),
            (f"{_LAYER}.mlp.0.{{leaf}}", mlp[0]),
            (f"{_LAYER}.mlp.3.{{leaf}}", mlp[1]),
            ("encoder.ln.{leaf}", "layernorm.{leaf}"),
        ),
        ("embeddings.cls_token",),
        ("pooler.", "classifier."),
    )


FORMATS: dict[Family, dict[str, Names]] = {
    "resnet": {
        "torchvision": Names("torchvision and timm", _same(_RESNET), ("conv1.weight",), ("fc.",)),
        "released": Names("released blockwise code", _released("backbone."), ("backbone.conv1.weight",)),
        "released_backbone": Names("backbone of the released blockwise code", _released(""), ("conv1.weight",)),
        "hf": Names(
            "transformers",
            (
                ("conv1.weight", "embedder.embedder.convolution.weight"),
                ("bn1.{leaf}", "embedder.embedder.normalization.{leaf}"),
                (f"{_UNIT}.conv{{i}}.weight", f"{_HF_UNIT}.layer.{{i-1}}.convolution.weight"),
                (f"{_UNIT}.bn{{i}}.{{leaf}}", f"{_HF_UNIT}.layer.{{i-1}}.normalization.{{leaf}}"),
                (f"{_UNIT}.downsample.0.weight", f"{_HF_UNIT}.shortcut.convolution.weight"),
                (f"{_UNIT}.downsample.1.{{leaf}}", f"{_HF_UNIT}.shortcut.normalization.{{leaf}}"),
            ),
            ("embedder.embedder.convolution.weight",),
            ("classifier.",),
        ),
    },
    "vit": {
        "torchvision": Names("torchvision", _same(_VIT), ("conv_proj.weight",), ("heads.",)),
        "timm": Names(
            "timm",
            (
                ("class_token", "cls_token"),
                ("conv_proj.{leaf}", "patch_embed.proj.{leaf}"),
                ("encoder.pos_embedding", "pos_embed"),
                (f"{_LAYER}.ln_1.{{leaf}}", "blocks.{n}.norm1.{leaf}"),
                (f"{_LAYER}.self_attention.in_proj_weight", "blocks.{n}.attn.qkv.weight"),
                (f"{_LAYER}.self_attention.in_proj_bias", "blocks.{n}.attn.qkv.bias"),
                (f"{_LAYER}.self_attention.out_proj.{{leaf}}", "blocks.{n}.attn.proj.{leaf}"),
                (f"{_LAYER}.ln_2.{{leaf}}", "blocks.{n}.norm2.{leaf}"),
                (f"{_LAYER}.mlp.0.{{leaf}}", "blocks.{n}.mlp.fc1.{leaf}"),
                (f"{_LAYER}.mlp.3.{{leaf}}", "blocks.{n}.mlp.fc2.{leaf}"),
                ("encoder.ln.{leaf}", "norm.{leaf}"),
            ),
            ("patch_embed.proj.weight",),
            ("head.",),
        ),
        "hf": _transformers_vit("transformers", "layers.{n}", "attention.{part}_proj", "qkv", _HF_PARTS),
        "hf4": _transformers_vit(
            "transformers 4", "encoder.layer.{n}", "attention.attention.{part}", ("query", "key", "value"), _HF4_PARTS
        ),
    },
    "module": {"own": Names("the network's own names", (), ())},
}
"""By family and name of the format; the first one that fits most names is taken."""


@dataclass(frozen=True)
class Renamed:
    """What the names of a file are.

    Args:
        format: of `FORMATS`.
        prefix: that precedes them all, such as `module.`.
        names: ours, each with those of the file that it consists of, in order.
        left_out: names of a classifier, which no backbone has.
        unexpected: all others.
    """

    format: str
    prefix: str
    names: dict[str, tuple[str, ...]]
    left_out: tuple[str, ...]
    unexpected: tuple[str, ...]


def recognise(family: Family, given: Collection[str], own: Collection[str] = ()) -> Renamed:
    """The format and the prefix under which most of the `given` names are weights of a backbone.

    Args:
        family: of the network.
        given: the names in a file.
        own: names of the network, for one of the user's own.
    """
    choices = []
    for name, names in FORMATS[family].items():
        anchors = names.anchors or tuple(own)[:1]
        prefixes = {given_name.removesuffix(a) for given_name in given for a in anchors if given_name.endswith(a)}
        for prefix in sorted({"", *prefixes}, key=len):
            choices.append(_renamed(name, names, prefix, given, own))
    return max(choices, key=lambda choice: len(choice.names))  # the first of several


def _renamed(name: str, names: Names, prefix: str, given: Iterable[str], own: Collection[str]) -> Renamed:
    found: dict[str, dict[int, str]] = {}
    left_out, unexpected = [], []
    for full in given:
        short = full.removeprefix(prefix) if full.startswith(prefix) else None
        place = None if short is None else _place(names, short, own)
        if place is not None:
            found.setdefault(place[0], {})[place[1]] = full
        elif any(each.startswith(names.classifier) for each in {full, short or full}):
            left_out.append(full)
        else:
            unexpected.append(full)
    whole = {}
    for ours, parts in found.items():
        if len(parts) == _parts_of(names, ours):
            whole[ours] = tuple(parts[number] for number in sorted(parts))
        else:
            unexpected += parts.values()
    return Renamed(name, prefix, whole, tuple(left_out), tuple(unexpected))


def _place(names: Names, theirs: str, own: Collection[str]) -> tuple[str, int] | None:
    """Our name for one of theirs, and which part of it that is."""
    if not names.rules:
        return (theirs, 0) if theirs in own else None
    for ours, patterns in names.rules:
        for number, pattern in enumerate(_patterns(patterns)):
            if (renamed := _translate(pattern, ours, theirs)) is not None:
                return renamed, number
    return None


def _parts_of(names: Names, ours: str) -> int:
    matching = (patterns for pattern, patterns in names.rules if _translate(pattern, pattern, ours) is not None)
    return len(_patterns(next(matching, "")))


def their_names(family: Family, form: str, ours: str) -> tuple[str, ...]:
    """The names in a format of what is `ours` here; several where it is split there along dimension 0.

    Raises:
        KeyError: the format has no name for it.
    """
    for pattern, patterns in FORMATS[family][form].rules:
        found = [_translate(pattern, theirs, ours) for theirs in _patterns(patterns)]
        if found[0] is not None:
            return tuple(name for name in found if name is not None)
    raise KeyError(ours)


def renamed_tensors(family: Family, form: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's tensors under the names of a format; split along dimension 0 where that has several."""
    renamed: dict[str, Any] = {}
    for ours, tensor in tensors.items():
        names = their_names(family, form, ours)
        parts: Sequence[Any] = tensor.chunk(len(names)) if len(names) > 1 else (tensor,)
        renamed |= dict(zip(names, parts, strict=True))
    return renamed


def _patterns(patterns: Pattern | tuple[Pattern, ...]) -> tuple[Pattern, ...]:
    return (patterns,) if isinstance(patterns, str) else patterns


def _translate(source: Pattern, target: Pattern, name: str) -> str | None:
    """`name`, which the pattern `source` describes, as `target` writes it; None if it does not describe it."""
    matched = _expression(source).fullmatch(name)
    if matched is None:
        return None
    values: dict[str, Any] = {key: int(text) if text.isdigit() else text for key, text in matched.groupdict().items()}
    for key, less in re.findall(r"\{(\w+)-(\d+)\}", source):
        values[key] += int(less)
    return _PLACE.sub(_writer(values), target)


_PLACE = re.compile(r"\{(\w+)(?:-(\d+))?\}")


def _writer(values: Mapping[str, Any]) -> Callable[[re.Match[str]], str]:
    return lambda place: str(values[place[1]] - int(place[2]) if place[2] else values[place[1]])


@cache
def _expression(pattern: Pattern) -> re.Pattern[str]:
    parts, end = [], 0
    for place in _PLACE.finditer(pattern):
        kind = "[a-z_]+" if place[1] == "leaf" else r"0|[1-9]\d{0,5}"
        parts += [re.escape(pattern[end : place.start()]), f"(?P<{place[1]}>{kind})"]
        end = place.end()
    return re.compile("".join((*parts, re.escape(pattern[end:]))))
