"""Somebody who types what a document shows, from its first line to its last, into a folder made for that.

Nothing is trained. `onward train` and `check` are asked as `onward check`; the runs that a line would leave are
remembered, with the snapshots that would be kept and what was evaluated last, and every other line must find what it
reads among them. Paths below `/path/to` are a folder with images, `/shared` and
`/data` are folders that are writable, `RUN` is a run.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from typer.main import get_command

from launch.cli import app
from launch.commands.evaluate import evaluation_config
from launch.prepare.prepared_run import dry_run
from launch.prepare.presets import configuration_file
from pipeline.config import Config
from pipeline.data.sampler import StepPlan
from pipeline.errors import ConfigError, UserError
from pipeline.validation.loading import dump_config, load_config, load_for_start
from tests.documents import Paragraph
from tests.named_keys import exists, names_a_key, overrides, overrides_and_keys
from tests.plans import wrong_question
from tests.sources import REPOSITORY
from workers.topology.processes import training_processes

STAND_INS = {
    "CONFIG": "configs/quickstart.yaml", "DIR": "runs/new", "FOLDER": "/path/to/images", "STEPS": "20", "S": "1",
    "FILE": "configs/quickstart.yaml", "PORT": "9464",
}  # fmt: skip
"""For words in capitals, which a reader replaces."""
BASES = (
    ["configs/quickstart.yaml"],
    ["configs/image_folder.yaml", "data.root=/path/to/few", "snapshots.every=null"],
)
"""What a single `key=value` is laid over: it must fit one of them."""
IN_WORDS = {
    "precision.shared_scaler=reference": ("precision.dtype=fp16", "runtime=serial"),
    "objective.negatives=single_patch": ("objective.kind=simclr",),
    "data.progressive": ("data.image_size=224",),
    "data.download=true": ("data.name=cifar10",),
}
"""What documents say in words of the keys beside."""
NAMED_BY_THE_PROGRAM = re.compile(r"runs/(\w+)-\d{8}-\d{6}")
Wrong = Iterator[str]


@dataclass
class Trained:
    """A run that a line of the document would have left.

    Args:
        config: of the run.
        measured: steps of the snapshots that were evaluated.
        last: what the last evaluation was of, None being the trained network; `never` before there is one.
    """

    config: Config
    measured: set[int] = field(default_factory=set)
    last: int | str | None = "never"

    def keeps(self, steps: int) -> bool:
        """Whether the snapshot after so many steps is there when the run has ended."""
        kept, all_steps = self.config.snapshots, StepPlan.of(self.config, 10_000).total_steps
        if kept.every is None or steps % kept.every or steps > all_steps:
            return False
        newest = list(range(kept.every, all_steps + 1, kept.every))[-kept.keep_last :]
        return steps in newest or (kept.keep_every is not None and steps % kept.keep_every == 0)


class Reader:
    """One reader of one document.

    Args:
        place: the working directory, with `configs`, `images`, and what a document has the reader write.
        run: a run that was trained, evaluated and has snapshots, which `RUN` stands for.
    """

    def __init__(self, place: Path, run: Path) -> None:
        self._place, self._runs = place, {"RUN": Trained(load_config(run / "config.yaml"), {195}, None)}
        self._tried: dict[tuple[str, ...], str | None] = {}

    def type(self, words: Sequence[str]) -> Wrong:
        """What is wrong with a command."""
        program, *rest = words
        if program == "onward":
            yield from self._onward(rest)
        elif program == "sbatch":
            script = next((at for at, word in enumerate(rest) if word.endswith(".sbatch")), None)
            if script is not None and not (REPOSITORY / rest[script]).is_file():
                yield f"there is no '{rest[script]}'"
            elif script is not None:
                yield from self._slurm(rest[:script], rest[script + 1 :])
        elif program == "srun" and rest[1:4] == ["python", "-m", "launch.train"]:
            yield from self._slurm(rest[:1], rest[4:])
        elif program == "make":
            yield from self._make(rest)
        elif program == "torchrun" and "-m" in rest:
            at = rest.index("-m")
            yield from self._torchrun(rest[:at], rest[at + 1], rest[at + 2 :])
        elif (
            program == "python" and rest[0].endswith(".py") and "/" in rest[0] and not (REPOSITORY / rest[0]).is_file()
        ):
            yield f"there is no '{rest[0]}'"

    def refusal(self, words: Sequence[str]) -> str | None:
        """Why `onward check` refuses a configuration and overrides; None where it does not."""
        file, *given = self._real(words)
        try:
            config, notes = load_for_start(configuration_file(file), given)
            dry_run(config)
        except (ConfigError, UserError) as error:
            return str(error)
        return next((note for note in notes if "without effect" in note), None)

    def names(self, paragraphs: Sequence[Paragraph]) -> Wrong:
        """What is wrong with the keys, with or without values, that a document names between backticks.

        A value that is refused alone needs another one, and the document must name that: anywhere, or two of them in
        the same paragraph.
        """
        everywhere = list(
            dict.fromkeys(override for paragraph in paragraphs for override in overrides_and_keys(paragraph))
        )
        for paragraph in paragraphs:
            for override in overrides(paragraph.code):
                key = override.partition("=")[0]
                others, beside = (
                    [other for other in given if other.partition("=")[0] != key]
                    for given in (everywhere, overrides_and_keys(paragraph))
                )
                needed = IN_WORDS.get(override, IN_WORDS.get(key, ()))
                sets = [needed, *((other,) for other in others), *combinations(beside, 2)]
                refusal = self._fits_somewhere([override])
                if refusal and all(self._fits_somewhere([override, *more]) for more in sets):
                    yield f"{paragraph.line}: `{override}` is refused, and nothing beside it helps: {refusal}"
            for code in paragraph.code:
                if names_a_key(code) and not exists(code.split(".")):
                    yield f"{paragraph.line}: there is no key `{code}`"

    def _fits_somewhere(self, overrides: Sequence[str]) -> str | None:
        if tuple(overrides) not in self._tried:
            refusals = (self.refusal([*base, *overrides]) for base in BASES)
            first = next(refusals)
            self._tried[tuple(overrides)] = None if first is None or None in refusals else first
        return self._tried[tuple(overrides)]

    def _onward(self, words: Sequence[str]) -> Wrong:
        if "─┬─>" in words:  # a picture of processes
            return
        try:
            name, given = _parsed([word for word in words if word not in ("...", "[key=value", "...]")])
        except Exception as error:  # click has no common base that is public in all versions
            yield f"{type(error).__name__}: {error}"
            return
        if name in ("train", "check"):
            yield from self._train([str(given["config"]), *(given["overrides"] or [])])
        elif name in ("evaluate", "resume", "report", "export") or (name in ("verify", "replay") and "run" in given):
            yield from self._of_run(name, str(given["run"]), given.get("overrides") or [])
            if (steps := given.get("first")) and not self._runs[str(given["run"])].keeps(steps):
                yield f"'{given['run']}' keeps no snapshot after {steps} steps"
        elif name == "bisect":
            for run in (given["one"], given["other"]):
                yield from self._of_run("verify", str(run), [])
        elif name == "plan":
            yield from wrong_question(given, self._real, self._place)
        elif name in ("compare", "select"):
            for run in given["runs"]:
                yield from self._evaluated(run, probes=name == "compare")
        elif name == "method":
            yield from self._train(given["arguments"] or BASES[0])
        elif name in ("pack", "verify"):
            try:
                self._packed(name, given)
            except UserError as error:
                yield str(error)

    def _train(self, words: Sequence[str]) -> Wrong:
        refusal = self.refusal(words)
        if refusal is not None:
            yield refusal
            return
        file, *given = self._real(words)
        config = load_config(configuration_file(file), given)
        if config.run_dir is not None:
            self._runs[config.run_dir] = Trained(config)

    def _of_run(self, name: str, run: str, overrides: Sequence[str]) -> Wrong:
        trained = self._find(run)
        if trained is None:
            yield f"no line before has trained '{run}'"
            return
        folder = self._place / "read"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(dump_config(trained.config.model_copy(update={"run_dir": None})))
        try:
            if name == "evaluate":
                config = evaluation_config(folder, [o for o in self._real(overrides) if not o.startswith("data.root=")])
                steps = config.evaluation.checkpoint
                if steps is not None and not trained.keeps(steps):
                    yield f"'{run}' keeps no snapshot after {steps} steps"
                trained.last = steps
                trained.measured |= {steps} - {None}  # type: ignore[arg-type]
            elif name in ("resume", "verify", "replay"):
                load_config(folder / "config.yaml", self._real(overrides))
        except (ConfigError, UserError) as error:
            yield str(error)

    def _evaluated(self, name: str, probes: bool = False) -> Wrong:
        """What is wrong with a run that must have been evaluated; with `probes`, those of its end will do."""
        if name == "runs/*":
            for run in set(self._runs) - {"RUN"}:
                yield from self._evaluated(run, probes)
            return
        run, _, steps = name.partition("@")
        trained = self._find(run)
        if trained is None:
            yield f"no line before has trained '{run}'"
        elif steps and int(steps) not in trained.measured:
            yield f"no line before has evaluated the snapshot '{name}'"
        elif not steps and trained.last is not None and not (probes and trained.config.evaluation.linear_probe):
            yield f"the last evaluation of '{run}' before this line is of: {trained.last}"

    def _find(self, run: str) -> Trained | None:
        named = NAMED_BY_THE_PROGRAM.fullmatch(run)
        if named and (self._place / "configs" / f"{named[1]}.yaml").is_file():
            return self._runs["RUN"]
        return self._runs.get(run)

    def _packed(self, name: str, given: dict[str, Any]) -> None:
        from launch.commands.pack import pack, verify_packed
        from launch.results.printing import command_console
        from pipeline.data.sets.packed import PackSettings

        if name == "verify":
            verify_packed(Path(self._real([str(given["folder"])])[0]), command_console(quiet=True))
            return
        source, out = self._real([str(given["source"]), str(given["out"])])
        shutil.rmtree(out, ignore_errors=True)
        settings = PackSettings(format=given["kind"], short_side=given["short_side"], quality=given["quality"])
        pack(Path(source), Path(out), settings, 2, command_console(quiet=True))

    def _torchrun(self, options: Sequence[str], module: str, words: Sequence[str]) -> Wrong:
        if module == "launch.evaluate":
            yield from self._of_run("evaluate", words[0], words[1:])
        if module != "launch.train":
            return
        yield from self._train(words)
        file, *given = self._real(words)
        needed = len(training_processes(load_config(file, given)))
        given_counts = dict(option.lstrip("-").split("=", 1) for option in options if "=" in option)
        hosts, each = int(given_counts.get("nnodes", 1)), given_counts.get("nproc-per-node")
        if each is not None and hosts * int(each) != needed:
            yield f"--nproc-per-node={each} on {hosts} hosts, and the run has {needed} processes"

    def _slurm(self, options: Sequence[str], words: Sequence[str]) -> Wrong:
        yield from self._train([word for word in words if word not in ("[key=value", "...]")])
        given = dict(option.split("=", 1) for option in options if "=" in option)
        each = int(given.get("--ntasks-per-node", "1"))
        tasks = int(given.get("--ntasks", each * int(given.get("--nodes", "1"))))
        file, *overrides = self._real(words)
        needed = len(training_processes(load_config(file, overrides)))
        if tasks not in (1, needed):
            yield f"{tasks} tasks, and the run has {needed} processes"

    def _make(self, words: Sequence[str]) -> Wrong:
        targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
        yield from (f"there is no target '{word}'" for word in words if "=" not in word and word not in targets)

    def _real(self, words: Sequence[str]) -> list[str]:
        """With the folders and files that are here in place of those that a document speaks of."""
        capitals = re.compile(rf"(?<![\w/.])({'|'.join(STAND_INS)})(?![\w/.])")
        real = [capitals.sub(lambda found: STAND_INS[found[0]], word) for word in words]
        real = [re.sub(r"/path/to/(\w+)", lambda found: str(self._place / _folder(found[1])), word) for word in real]
        return [re.sub(r"(?<==)/(shared|data)/(?=\w)", f"{self._place}/", word) for word in real]


def _folder(name: str) -> str:
    return name if name in ("packed", "few") else "images"


def _parsed(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command and its parameters, as the command line reads them; raises what it raises."""
    command: Any = get_command(app)
    rest, name = list(words), "onward"
    while hasattr(command, "commands") and rest:
        name, command, rest = command.resolve_command(command.make_context(name, rest, resilient_parsing=True), rest)
    if hasattr(command, "commands") or not [word for word in rest if not word.startswith("-")]:
        return "", {}  # the text speaks of the command
    return name, command.make_context(name, rest).params
