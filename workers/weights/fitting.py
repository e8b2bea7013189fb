"""Which of the tensors that were read are which weights of a run, and a table of those that do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import isqrt

import torch
from torch import Tensor, nn

from pipeline.backbones import build_block
from pipeline.backbones.heads import build_head
from pipeline.backbones.weight_names import FORMATS, Family, Renamed, recognise
from pipeline.config import Config
from pipeline.config.initial import InitFromConfig
from pipeline.config.model import ModuleConfig, ResNetConfig, ViTConfig
from pipeline.config.network_sizes import vit_sizes
from pipeline.errors import UserError
from pipeline.objectives import build_objective
from pipeline.shapes import block_output, channels_of
from pipeline.stage.state import Facts
from workers.weights.tensors import PREFIXES, TRUNK, OpenedWeights

_HEAD = re.compile(r"stages\.[1-9]\d*\.(head|objective)\.")
COUNTER = "num_batches_tracked"
"""A buffer of batch norm that nothing here reads, and that old files and the released code's do not have."""
POSITIONS = ("pos_embedding", "pos_embed")
"""Ends of the names of position embeddings, `[1, tokens, channels]`, which are for images of one size."""


def family_of(model: ResNetConfig | ViTConfig | ModuleConfig) -> Family:
    """Which table of names is for a network."""
    if isinstance(model, ResNetConfig):
        return "resnet"
    return "vit" if isinstance(model, ViTConfig) else "module"


def expected_facts(config: Config, index: int) -> dict[str, Facts]:
    """Shape and dtype of what stage `index` trains, by its names there: `block.NAME`, `head.NAME`, `objective.NAME`."""
    try:
        with torch.device("meta"):  # nothing is drawn, and no memory taken
            return _facts(config, index)
    except Exception:  # a network of the user's own that makes tensors or decisions
        return _facts(config, index)


def _facts(config: Config, index: int) -> dict[str, Facts]:
    stage = config.stage(index)
    parts: dict[str, nn.Module] = {"block": build_block(config, index)}
    if not stage.frozen and (config.mode != "end_to_end" or index == config.num_stages):
        head = build_head(stage.head, channels_of(block_output(config, index)), config.seed, index)
        parts["head"] = head
        parts["objective"] = build_objective(stage.objective, head.embedding_width, config.seed, index)
    return {name: Facts.of(tensor) for name, tensor in nn.ModuleDict(parts).state_dict().items()}


@dataclass
class Fit:
    """What one stage takes from a source.

    Args:
        names: of the stage's tensors, each with those of the source that it consists of.
        rows: of the table: what is wrong with which tensor.
        head: whether the head is among them.
        why_no_head: the reason if it is not, where the source has one.
        tokens: of the source's position embeddings, where they are for images of another size.
    """

    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rows: list[tuple[str, str]] = field(default_factory=list)
    head: bool = False
    why_no_head: str = ""
    tokens: int | None = None


def fit_stages(
    config: Config, weights: OpenedWeights, settings: InitFromConfig, expected: Mapping[int, Mapping[str, Facts]]
) -> tuple[Renamed, dict[int, Fit]]:
    """What the stages of `expected` take from one source.

    Args:
        config: of the run.
        weights: of the source.
        settings: how it is to be taken.
        expected: the facts of every stage of the run; those of `init_from` another source, too, since what belongs to
            them is not unexpected.

    Returns:
        What the names are, and what each stage of the run would take.
    """
    family = family_of(config.model)
    own = [name.removeprefix(TRUNK) for facts in expected.values() for name in facts if name.startswith(TRUNK)]
    given = [name for name in weights.facts if not _is_head(name)]
    renamed = recognise(family, given, own)
    heads = {name: (name,) for name in weights.facts if _is_head(name)}
    names = {**renamed.names, **heads}
    fits = {index: _fit(index, facts, names, weights, settings) for index, facts in expected.items()}
    return renamed, fits


def unexpected_rows(
    renamed: Renamed, expected: Iterable[Mapping[str, Facts]], settings: InitFromConfig
) -> list[tuple[str, str]]:
    """Rows for the tensors of a source that no stage of the run has a place for."""
    places = {name.removeprefix(TRUNK) for facts in expected for name in facts if name.startswith(TRUNK)}
    known = [theirs for ours, parts in renamed.names.items() if ours not in places and not _is_head(ours)
             for theirs in parts]  # fmt: skip
    return [(name, "the network has no such tensor") for name in (*renamed.unexpected, *known)
            if not _allowed(settings, name)]  # fmt: skip


def _is_head(name: str) -> bool:
    return _HEAD.match(name) is not None


def _fit(
    index: int,
    expected: Mapping[str, Facts],
    names: Mapping[str, tuple[str, ...]],
    weights: OpenedWeights,
    settings: InitFromConfig,
) -> Fit:
    fit = Fit()
    for name, facts in expected.items():
        if not name.startswith(TRUNK):
            continue
        parts, problem = _matched(names.get(name.removeprefix(TRUNK), ()), facts, weights)
        if not problem:
            fit.names[name] = parts
        elif not (name.endswith(COUNTER) and not parts) and not _allowed(settings, name.removeprefix(TRUNK), *parts):
            fit.rows.append((name.removeprefix(TRUNK), problem))
            given = weights.facts[parts[0]].shape if parts else ()
            if name.endswith(POSITIONS) and len(given) == 3 and given[::2] == facts.shape[::2]:
                fit.tokens = given[1]
    if settings.heads is not False:
        _fit_head(index, expected, names, weights, settings, fit)
    return fit


def _fit_head(
    index: int,
    expected: Mapping[str, Facts],
    names: Mapping[str, tuple[str, ...]],
    weights: OpenedWeights,
    settings: InitFromConfig,
    fit: Fit,
) -> None:
    wanted = {name: facts for name, facts in expected.items() if name.startswith(PREFIXES)}
    if not wanted:
        return
    found, rows = {}, []
    for name, facts in wanted.items():
        parts, problem = _matched(names.get(f"stages.{index}.{name}", ()), facts, weights)
        if not problem:
            found[name] = parts
        elif not (name.endswith(COUNTER) and not parts) and not _allowed(settings, f"stages.{index}.{name}", *parts):
            rows.append((f"stages.{index}.{name}", problem))
    if not rows:
        fit.names |= found
        fit.head = bool(found)
    elif settings.heads is True:
        fit.rows += rows
    elif any(name.startswith(f"stages.{index}.") for name in names):
        fit.why_no_head = f"{rows[0][0]}: {rows[0][1]}"


def _matched(parts: tuple[str, ...], facts: Facts, weights: OpenedWeights) -> tuple[tuple[str, ...], str]:
    """The tensors that make one of the run's, and what is wrong with them; empty if nothing is."""
    if not parts:
        return parts, "missing"
    given = [weights.facts[part] for part in parts]
    shape = given[0].shape if len(parts) == 1 else (sum(each.shape[0] for each in given), *given[0].shape[1:])
    if shape != facts.shape:
        return parts, f"{list(shape)} in the source, {list(facts.shape)} in the network"
    floating = facts.dtype is not None and facts.dtype.is_floating_point
    fits = all(each.dtype is not None and each.dtype.is_floating_point == floating for each in given)
    return parts, "" if fits else f"{given[0]} in the source, {facts} in the network"


def _allowed(settings: InitFromConfig, *names: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in settings.allow)


def joined(weights: OpenedWeights, parts: Sequence[str], facts: Facts) -> Tensor:
    """One tensor of a stage, in the dtype that it has there."""
    tensors = [weights.read(part) for part in parts]
    return (tensors[0] if len(tensors) == 1 else torch.cat(tensors)).to(facts.dtype)


class MisfitError(UserError):
    """Weights that do not fit.

    Args:
        key: of the configuration.
        source: as it was given.
        names: what its names are, in words.
        rows: name and problem of every tensor.
        remedy: a sentence for what would do, where that is known.
    """

    def __init__(self, key: str, source: str, names: str, rows: list[tuple[str, str]], remedy: str = "") -> None:
        self.rows = rows
        count = "1 tensor does" if len(rows) == 1 else f"{len(rows)} tensors do"
        first = rows[0][0]
        remedy = remedy or "Give weights of this network"
        remedy = f"{remedy}, or name what may differ, as in {key}.allow='[\"{first}\"]'"
        super().__init__(f"{key}: {count} not fit between '{source}' ({names}) and the network. {remedy}")


def image_size_remedy(model: ResNetConfig | ViTConfig | ModuleConfig, fits: Iterable[Fit]) -> str:
    """What to give where position embeddings are for images of another size; empty where they are not."""
    tokens = next((fit.tokens for fit in fits if fit.tokens is not None), None)
    if tokens is None:
        return ""
    side = isqrt(tokens)  # of the square of patches, beside which there may be a token for the class
    pixels = f"={side * vit_sizes(model).patch_size}" if isinstance(model, ViTConfig) else ""
    return f"Position embeddings are not resized: give the data.image_size{pixels} of the source"


def names_in_words(family: Family, renamed: Renamed) -> str:
    """Whose names those of a file are."""
    if not renamed.names:
        return "names that are not known"
    prefix = f", after '{renamed.prefix}'" if renamed.prefix else ""
    return f"names of {FORMATS[family][renamed.format].title}{prefix}"
