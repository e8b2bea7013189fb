"""`onward convert FILE`: what weights are in a file, and a copy of them under torchvision's names."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from launch.results.printing import command_console
from pipeline.backbones.weight_names import FORMATS, Family, Renamed, recognise
from pipeline.errors import UserError, printable
from pipeline.stage.state import Facts
from workers.run.tensor_files import save_tensors
from workers.weights.fitting import names_in_words
from workers.weights.sources import Source
from workers.weights.tensors import OpenedWeights, opened_weights

SUFFIX = ".safetensors"
FAMILIES: tuple[Family, ...] = ("resnet", "vit")


def convert_weights(name: str, to: Path | None) -> list[str]:
    """Print a table of what is in `name`, and copy it to `to` under torchvision's names, if that is given.

    Returns:
        Sentences for the user.

    Raises:
        UserError: it cannot be read; it is to be copied, and its names are not known; `to` cannot be written.
    """
    source = Source.of(name)
    if to is not None:
        _check_target(to)
    with opened_weights(source) as weights:
        family, renamed = _recognised(weights)
        table, notes = _table(weights, renamed), [_summary(source, weights, family, renamed)]
        if weights.converted is not None:
            beside = ", ".join(weights.converted.beside)
            notes += [f"left out, as it lies beside the weights: {beside}"] if beside else []
            notes.append(f"read by a process with {', '.join(weights.converted.isolation)}")
        if to is not None:
            notes.append(_copied(source, weights, family, renamed, to))
    command_console().show(table)
    return notes


def _check_target(to: Path) -> None:
    if to.suffix != SUFFIX:
        raise UserError(f"'{to}' should end with {SUFFIX}, for that is what is written. Give {to.with_suffix(SUFFIX)}")
    if to.exists():
        raise UserError(f"'{to}' already exists. Give another file, or delete it")
    if not to.absolute().parent.is_dir():
        raise UserError(f"'{to}' cannot be written (there is no folder '{to.parent}'). Give a file in one that exists")


def _recognised(weights: OpenedWeights) -> tuple[Family, Renamed]:
    """The family whose names fit most tensors."""
    found = [(family, recognise(family, list(weights.facts))) for family in FAMILIES]
    return max(found, key=lambda each: len(each[1].names))


def _table(weights: OpenedWeights, renamed: Renamed) -> Table:
    """One row for every part of the network: how many tensors, how many numbers, of which types."""
    ours = {theirs: name for name, parts in renamed.names.items() for theirs in parts}
    groups: dict[tuple[str, str], list[Facts]] = defaultdict(list)
    for name, facts in weights.facts.items():
        known = ours.get(name)
        kind = "backbone" if known and not known.startswith("stages.") else "head" if known else "unknown"
        kind = "classifier" if name in renamed.left_out else kind
        groups[_part(name), kind].append(facts)
    table = Table()
    for title in ("tensors named", "what"):
        table.add_column(title)
    for title in ("tensors", "numbers", "types"):
        table.add_column(title, justify="right")
    for (part, kind), facts_of_part in groups.items():
        numbers = sum(_numbers(facts) for facts in facts_of_part)
        types = sorted({str(facts).split(" ")[0] for facts in facts_of_part})
        cells = (f"{printable(part)}*", kind, str(len(facts_of_part)), f"{numbers:,}", ", ".join(types))
        table.add_row(*map(Text, cells))
    return table


def _part(name: str) -> str:
    """The beginning of a name, to and with its first number; or all of it but the last word."""
    words = name.split(".")
    end = next((number for number, word in enumerate(words) if word.isdigit() or word[-1:].isdigit()), len(words) - 2)
    return ".".join(words[: max(end, 0) + 1]) + "."


def _numbers(facts: Facts) -> int:
    count = 1
    for size in facts.shape:
        count *= size
    return count


def _summary(source: Source, weights: OpenedWeights, family: Family, renamed: Renamed) -> str:
    nested = f", under '{weights.converted.nested}'" if weights.converted and weights.converted.nested else ""
    numbers = sum(_numbers(facts) for facts in weights.facts.values())
    unknown = f", {len(renamed.unexpected)} of them unknown" if renamed.unexpected else ""
    return (
        f"'{source.name}' ({source.kind}{nested}): {len(weights.facts)} tensors{unknown}, {numbers:,} numbers; "
        f"{family}, {names_in_words(family, renamed)}; SHA-256 {source.digest()}"
    )


def _copied(source: Source, weights: OpenedWeights, family: Family, renamed: Renamed, to: Path) -> str:
    if not renamed.names:
        known = ", ".join(names.title for names in FORMATS["resnet"].values())
        raise UserError(f"'{source.name}' has no name that is known, so '{to}' was not written. Known: {known}")
    import torch

    tensors = {}
    for ours, parts in renamed.names.items():
        read = [weights.read(part) for part in parts]
        tensors[ours] = read[0] if len(read) == 1 else torch.cat(read)
    try:
        save_tensors(to, tensors, {"format": "pt"})
    except OSError as error:
        raise UserError(f"'{to}' cannot be written ({error.strerror}). Give another file") from None
    left = len(weights.facts) - sum(len(parts) for parts in renamed.names.values())
    return f"wrote {len(tensors)} tensors to '{to}'" + (f", without {left}" if left else "")
