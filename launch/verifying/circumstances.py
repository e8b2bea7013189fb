"""What may give other bits by right: versions, processors, devices and keys of two sides, from their provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from launch.prepare.config_differences import changes_no_bit, differences
from launch.prepare.config_record import edits, since, trains
from launch.prepare.provenance import DISTRIBUTIONS, read_starts
from pipeline.config import Config
from pipeline.errors import UserError
from workers.run.files import RunDir, relative_to_cwd
from workers.snapshots.bits import bits_note
from workers.snapshots.manifest import MANIFEST, read_manifest


@dataclass(frozen=True)
class Circumstances:
    """Of one side.

    Args:
        versions: by package; empty where nothing was recorded.
        system, processor: of the host that prepared it.
        gpus: names of its GPUs.
        devices: kinds of devices that computed, `cpu` or `cuda`.
        modules: digests of the user's own modules, by name.
    """

    _: KW_ONLY
    versions: Mapping[str, str]
    system: str
    processor: str
    gpus: tuple[str, ...]
    devices: tuple[str, ...]
    modules: Mapping[str, str]

    @classmethod
    def of(cls, run: RunDir, step: int) -> Circumstances:
        """Of the start that trained `step`, counted from 0; all empty where there is no record of it."""
        starts = [start for start in read_starts(run) if trains(start, step)]
        start: dict[str, Any] = starts[-1] if starts else {}
        modules = start.get("modules") if isinstance(start.get("modules"), list) else []
        return cls(
            versions=_texts(start.get("versions")),
            system=str(start.get("system", "")),
            processor=str(start.get("processor", "")),
            gpus=_sorted(start.get("gpus")),
            devices=_sorted(start.get("devices")),
            modules={str(m.get("name")): str(m.get("sha256")) for m in modules or () if isinstance(m, dict)},
        )


def other_circumstances(there: Circumstances, here: Circumstances) -> list[str]:
    """A sentence for everything that may give other bits by right; `there` is the run, `here` what is compared."""
    if not there.versions:
        return ["there is no record of where the run was trained (provenance.json)"]
    said = [
        f"{name} {there.versions.get(name, 'unknown')} there, {here.versions.get(name, 'none')} here"
        for name in dict.fromkeys((*DISTRIBUTIONS, *there.versions))
        if there.versions.get(name) != here.versions.get(name)
    ]
    if there.devices != here.devices:
        said.append(f"devices {_listed(there.devices)} there, {_listed(here.devices)} here")
    for what, one, other in (
        ("system", there.system, here.system),
        ("processor", there.processor, here.processor),
        ("GPUs", ", ".join(there.gpus), ", ".join(here.gpus)),
    ):
        if one != other:
            said.append(f"{what} {one or 'not recorded'} there, {other or 'not known'} here")
    changed = [name for name, digest in there.modules.items() if here.modules.get(name) != digest]
    if changed:
        said.append(f"another content of {', '.join(changed)} (RUN/modules has the one there)")
    return said


def given_otherwise(run: RunDir, step: int) -> list[str]:
    """A sentence where a later start of the run was given other values than the one that trained `step`."""
    found = since(read_starts(run), step)
    return [f"when they were trained, {'; '.join(found)} since"] if found else []


def other_version(config: Config, states: Iterable[Path]) -> list[str]:
    """A sentence where one of these snapshots is of a version that computed other bits of such a run."""
    written = [read_manifest(state).bits for state in states if (state / MANIFEST).is_file()]
    note = bits_note(config, min(written)) if written else None
    return [] if note is None else [note]


def edited(run: RunDir) -> str:
    """A sentence if `config.yaml` is not what the last start wrote; empty if it is, or nobody knows."""
    try:
        found = edits(run, read_starts(run))
    except (OSError, ValueError) as error:
        raise UserError(f"'{run.config}' cannot be read ({error})") from None
    name = relative_to_cwd(run.config)
    return f"{name} was edited after the run was started: {'; '.join(found)}" if found else ""


def other_keys(there: Config, here: Config) -> list[str]:
    """The keys of two configurations that differ and may change bits; of `faults` those that flip one do."""
    there, here = (
        config.model_copy(update={"faults": tuple(f for f in config.faults if f.kind.startswith("flip_"))})
        for config in (there, here)
    )
    return [*differences(there, here, changes_no_bit).values()]


def _texts(value: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _sorted(value: object) -> tuple[str, ...]:
    """Kinds, without the numbers of devices."""
    return tuple(sorted({str(each).partition(":")[0] for each in value})) if isinstance(value, list) else ()


def _listed(devices: tuple[str, ...]) -> str:
    return ", ".join(devices) or "not recorded"
