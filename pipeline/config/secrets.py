"""Removes from a configuration what others must not read.

Trackers take passwords and keys as options, so options of trackers are removed from everything that is shown or sent:
the live page, reports, TensorBoard. So is any text under a key that is named like a secret, and a password in an
address. Only `config.yaml` holds them, and is then readable by the user alone.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.config import Config

HIDDEN = "(not shown)"
_WORDS = re.compile(
    r"(?<![a-z])(api|access|private|auth|secret|encryption|signing|ssh)[_-]?key(?![a-z])"
    r"|secret|passw(or)?d|passphrase|credential|bearer|(?<![a-z])(pwd|token|auth|pat)(?![a-z])"
)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+(?=@)")
"""Matches the NAME:PASSWORD of an address."""


def looks_secret(key: str) -> bool:
    """Whether a key is named like a secret: `api_key`, `WANDB_API_KEY`, `apiKey`, `password`, `auth_token`."""
    spelled = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", key).lower()
    return bool(_WORDS.search(spelled.replace("_", "-")))


def without_secrets(config: Config) -> dict[str, Any]:
    """The configuration as plain values, with secrets replaced by `HIDDEN`."""
    return values_without_secrets(config.model_dump(mode="json"))


def argument_without_secrets(argument: str) -> str:
    """A word of a command line, with `HIDDEN` for the value of a `KEY=VALUE` that may hold a secret."""
    key, sign, value = argument.partition("=")
    tracker = key.split(".")[0] == "trackers" and (".options" in key or "{" in value)
    if sign and value and (tracker or looks_secret(key) or ("{" in value and looks_secret(value))):
        return f"{key}={HIDDEN}"
    return _IN_ADDRESS.sub(HIDDEN, argument)


def values_without_secrets(values: dict[str, Any]) -> dict[str, Any]:
    """As `without_secrets`, of the values in a file that nobody has validated."""
    cleaned: dict[str, Any] = _cleaned(values)
    trackers = cleaned.get("trackers")
    for tracker in trackers if isinstance(trackers, list) else ():
        if isinstance(tracker, dict) and isinstance(tracker.get("options"), dict):
            tracker["options"] = dict.fromkeys(tracker["options"], HIDDEN)
    return cleaned


def has_secrets(config: Config) -> bool:
    """Whether the configuration file must be private: trackers have options, or a key is named like a secret."""
    values = config.model_dump(mode="json")
    return any(tracker.options for tracker in config.trackers) or _cleaned(values) != values


def _cleaned(value: Any, secret: bool = False) -> Any:
    """`value` without secrets at any depth; only text can be one, so `num_token: 3` stays."""
    if isinstance(value, dict):
        return {key: _cleaned(item, secret or looks_secret(str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item, secret) for item in value]
    if not isinstance(value, str):
        return value
    return HIDDEN if secret and value else _IN_ADDRESS.sub(HIDDEN, value)
