"""`onward.Config`: the configuration of a run with its types, read from a file or a preset, or written in Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.prepare.presets import configuration_file
from onward.overrides import as_text
from pipeline import config as settings
from pipeline.validation.combinations import check_combinations
from pipeline.validation.loading import LoadOptions, apply_override, dump_config, load_for_start, parse_config
from pipeline.validation.paths import with_absolute_paths


class Config(settings.Config):
    """One run: every key with its type; frozen.

    `Config(train={"epochs": 2}, data={"batch_size": 256})` has the defaults for everything else. Relative paths are
    those of the working directory.

    Raises:
        ConfigError: a key or value is not accepted; in the words of the command line.
    """

    def __init__(self, **values: Any) -> None:
        checked = with_absolute_paths(parse_config(values, build=False))
        super().__init__(**{name: getattr(checked, name) for name in checked.model_fields_set})

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], overrides: Mapping[str, object] | None = None, **keywords: object
    ) -> Config:
        """Read a YAML file, or a preset by its name, `quickstart`.

        Args:
            path: of the file; a file goes before a preset of the same name.
            overrides: values by dotted key: `{"train.epochs": 2}`.
            keywords: the same with two underscores for every dot: `train__epochs=2`.

        Raises:
            UserError: there is no such file or preset, or it is no YAML.
            ConfigError: a key or value is not accepted.
        """
        return cls.of(read(path, overrides, keywords)[0])

    @classmethod
    def of(cls, config: settings.Config) -> Config:
        """A configuration that has been checked, as one of this class."""
        return Config.model_construct(**{name: getattr(config, name) for name in settings.Config.model_fields})

    def replace(self, overrides: Mapping[str, object] | None = None, **keywords: object) -> Config:
        """A copy with other values; arguments and errors as `load`."""
        return Config.of(changed(self, overrides, keywords))

    def plain(self) -> settings.Config:
        """The same as the class that the rest of the package compares."""
        return settings.Config.model_construct(**{name: getattr(self, name) for name in settings.Config.model_fields})

    def to_yaml(self) -> str:
        """All keys as YAML, which `load` reads back to an equal configuration; `onward check` prints the same."""
        return dump_config(self.plain())


def read(
    config: settings.Config | str | os.PathLike[str],
    overrides: Mapping[str, object] | None,
    keywords: Mapping[str, object],
) -> tuple[settings.Config, str, list[str]]:
    """A configuration with overrides, its name, and sentences for the user; nothing that it names is imported.

    Args:
        config: a configuration, the path of a file, or the name of a preset.
        overrides, keywords: as `Config.load`.

    Raises:
        UserError, ConfigError: as `Config.load`.
    """
    if isinstance(config, settings.Config):
        return changed(config, overrides, keywords), "run", []
    path = configuration_file(os.fspath(config))
    loaded, notes = load_for_start(path, as_text(overrides, keywords), LoadOptions(build=False))
    return loaded, Path(path).stem, notes


def read_checked(
    config: settings.Config | str | os.PathLike[str], texts: Sequence[str], trust: bool
) -> tuple[settings.Config, list[str]]:
    """As `read`, with overrides of the command line's form; what it names is imported, and all of it is checked.

    Args:
        config: a configuration, the path of a file, or the name of a preset.
        texts: `KEY=VALUE`.
        trust: import what it names although it is another user's file.

    Raises:
        UserError, ConfigError: as `Config.load`.
    """
    if not isinstance(config, settings.Config):
        return load_for_start(configuration_file(os.fspath(config)), texts, LoadOptions(trusted=trust))
    checked = changed(config, None, {}, texts)
    check_combinations(checked)
    return checked, []


def changed(
    config: settings.Config,
    overrides: Mapping[str, object] | None,
    keywords: Mapping[str, object],
    texts: Sequence[str] = (),
) -> settings.Config:
    """A configuration with overrides, those of the command line's form first; raises `ConfigError`."""
    values = config.model_dump(mode="json")
    for override in (*texts, *as_text(overrides, keywords)):
        apply_override(values, override)
    return with_absolute_paths(parse_config(values, build=False))
