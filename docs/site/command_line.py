"""Every command with its arguments and options, as the parser has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from docs.site.markdown import code, generated, table
from launch.cli import app

INTRODUCTION = """
`onward COMMAND --help` prints the same. `onward` is `.venv/bin/onward`, or activate `.venv` first. Options may stand
before or after arguments. `KEY=VALUE` overrides a key of [the configuration](configuration.md).

Under torchrun and srun, `onward train` is `python -m launch.train` and takes `-q`, `-v`, `--force`, the file and the
overrides; `onward evaluate` is `python -m launch.evaluate`. [Exit codes](exit-codes.md) are the same for all commands.
"""


def page() -> str:
    """`reference/command-line.md`."""
    root: Any = get_command(app)
    return generated("Command line", INTRODUCTION.strip() + "\n", *_group(root, "onward"))


def _group(group: Any, name: str) -> Iterator[str]:
    for child, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _group(command, f"{name} {child}")
        else:
            yield from _command(command, f"{name} {child}")


def _command(command: Any, name: str) -> Iterator[str]:
    yield f"## {name}\n"
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    words = " ".join([name, *map(_usage, arguments), *(["[OPTIONS]"] if options else [])])
    yield f"```text\n{words}\n```\n"
    yield " ".join(command.help.split()) + "\n"
    rows = [[code(param.metavar or param.name.upper()), param.help or "", ""] for param in arguments]
    rows += [[_names(param), param.help or "", _default(param)] for param in options]
    yield table(("argument or option", "what it is", "default"), rows)


def _usage(param: Any) -> str:
    name = str(param.metavar or param.name.upper()) + ("..." if param.nargs == -1 else "")
    return name if param.required else f"[{name}]"


def _names(param: Any) -> str:
    value = "" if param.is_flag else f" {param.metavar or 'N'}"
    return ", ".join(code(name + value) for name in reversed(param.opts))


def _default(param: Any) -> str:
    return "" if param.is_flag or param.default is None else code(param.default)
