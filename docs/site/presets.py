"""The presets, from the headers of their files, whose memory a test computes again."""

from __future__ import annotations

import re
from pathlib import Path

from docs.site.markdown import generated

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PARTS = ("Command", "Time", "Memory", "Expect", "Source")
INTRODUCTION = """
A preset is a file in `configs/`, to train as it is or with any key overridden.

Memory is computed, not measured, by `onward check CONFIG --memory --gpu a100-80` and the like; a test computes it again.
No time is given where none was measured. [Fit into memory](../how-to/memory.md) says what to do where a stage is too large.
"""


def page() -> str:
    """`reference/presets.md`."""
    parts = [INTRODUCTION.strip() + "\n"]
    for path in sorted(CONFIGS.glob("*.yaml")):
        what, values = read_header(path)
        items = [_item(name, values[name]) for name in PARTS if name in values]
        parts += [f"## {path.stem}\n", f"[`{path.name}`](../../configs/{path.name}): {what}\n", "\n".join(items) + "\n"]
    return generated("Presets", *parts)


def read_header(path: Path) -> tuple[str, dict[str, str]]:
    """The sentence that opens a preset's comment, and what follows each of `PARTS`, on one line each."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    first, *rest = re.split(rf"(?:^|\n)({'|'.join(PARTS)}): +", "\n".join(lines))
    return " ".join(first.split()), {
        name: " ".join(text.split()) for name, text in zip(rest[::2], rest[1::2], strict=True)
    }


def _item(name: str, text: str) -> str:
    if name != "Command":
        return f"- **{name}**: {text}"
    command, _, more = text.partition(" (")
    return f"- **{name}**: `{command}`" + (f" ({more}" if more else "")
