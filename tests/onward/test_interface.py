"""The names of `onward`, keys as keyword arguments, the configuration with its types, and whose packages those are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import onward
from launch.prepare.presets import configuration_file, preset_names
from onward.overrides import as_text
from onward.owners import PACKAGES, check_owners
from onward.steps import StepFile, follow
from tests.sources import REPOSITORY, tree_of

LINE = (
    '{"step": %d, "epoch": 0, "images_per_second": 1.5, "eta_seconds": null, "stages": [{"stage": 1, "loss": 0.5}]}\n'
)


def test_every_name_is_there_and_has_a_docstring() -> None:
    typed = {
        alias.name
        for node in ast.walk(tree_of(REPOSITORY / "onward" / "__init__.py"))
        if isinstance(node, ast.ImportFrom)
        and node.module
        and node.module.split(".")[0] in ("onward", "pipeline", "workers")
        for alias in node.names
    }
    assert typed - {"check_owners"} == set(onward.__all__) - {"__version__"}, "as users of types see it"
    assert dir(onward) == sorted(onward.__all__)
    assert [name for name in onward.__all__ if not getattr(onward, name).__doc__] == []
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        onward.tarin  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.processes
def test_the_import_loads_nothing_that_takes_time() -> None:
    slow = ("torch", "pydantic", "numpy", "launch", "pipeline")
    command = [sys.executable, "-c", f"import sys, onward; print([n for n in {slow} if n in sys.modules])"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "[]\n"


def test_the_version_is_written_once_and_the_citation_has_it() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert {"title", "authors", "message", "cff-version"} <= citation.keys()
    assert re.fullmatch(r"\d+\.\d+\.\d+", onward.__version__)
    packages = [*PACKAGES, "onward"]
    assert [name for name in packages if not (REPOSITORY / name / "py.typed").is_file()] == []


def test_keywords_are_the_overrides_of_the_command_line() -> None:
    keywords = {"train__epochs": 2, "stages__3__replicas": 2, "optimizer__lr": 1e-06, "data__root": Path("/a b"),
                "model__cuts": ("layer1",), "run_dir": "yes", "snapshots__every": None}  # fmt: skip
    assert as_text({"link.kind": "queue"}, keywords) == [
        'link.kind="queue"', "train.epochs=2", "stages.3.replicas=2", "optimizer.lr=1e-06", 'data.root="/a b"',
        'model.cuts=["layer1"]', 'run_dir="yes"', "snapshots.every=null",
    ]  # fmt: skip
    loaded = onward.Config.load("quickstart", {"train.epochs": 20}, optimizer__lr=1e-06, run_dir="yes")
    assert (loaded.train.epochs, loaded.optimizer.lr, loaded.run_dir) == (20, 1e-06, "yes")


@pytest.mark.parametrize(
    ("overrides", "keywords", "refusal"),
    [
        ({"train.epochs": 2}, {"train__epochs": 3}, r"^train\.epochs: is given twice"),
        ({}, {"objective__kind": print}, r"^objective\.kind: got a Python object of type builtin_function.*loss="),
        ({}, {"trian__epochs": 2}, r"^trian: unknown key .*Did you mean 'train'"),
        ({}, {"train__epochs": "two"}, r"^train\.epochs: got 'two'. It should be an integer"),
        ({"noise.kind": "al"}, {}, r"^noise\.kind: unknown value 'al'\. Did you mean 'all'"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_command_line(
    overrides: dict[str, object], keywords: dict[str, object], refusal: str
) -> None:
    with pytest.raises(onward.ConfigError, match=refusal):
        onward.Config.load("quickstart", overrides, **keywords)
    with pytest.raises(onward.ConfigError, match=refusal):
        onward.train("quickstart", overrides=overrides, **keywords)  # type: ignore[arg-type]
    with pytest.raises(onward.ConfigError, match=refusal):
        onward.Config.load("quickstart").replace(overrides, **keywords)


def test_a_configuration_is_the_same_from_a_file_and_from_python(tmp_path: Path) -> None:
    loaded = onward.Config.load("quickstart", train__epochs=12)
    (tmp_path / "own.yaml").write_text(loaded.to_yaml())
    assert onward.Config.load(tmp_path / "own.yaml") == loaded
    assert onward.Config(**yaml.safe_load(loaded.to_yaml())) == loaded
    assert loaded.replace(train__epochs=15) == onward.Config.load("quickstart")
    assert onward.Config(train={"epochs": 20}, seed=3).train.epochs == 20
    with pytest.raises(onward.ConfigError, match=r"^seed: got 'x'\. It should be an integer"):
        onward.Config(seed="x")


def test_a_preset_has_a_name_and_a_file_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert preset_names() == sorted(path.stem for path in (REPOSITORY / "configs").glob("*.yaml"))
    assert configuration_file("quickstart").read_bytes() == (REPOSITORY / "configs" / "quickstart.yaml").read_bytes()
    (tmp_path / "quickstart").mkdir()
    assert configuration_file("quickstart").is_file(), "a folder is no configuration"
    (tmp_path / "quickstart").rmdir()
    (tmp_path / "quickstart").write_text("seed: 7\n")
    assert onward.Config.load("quickstart").seed == 7
    with pytest.raises(
        onward.UserError, match=r"'quikstart\.yaml' does not exist\. Did you mean 'quickstart'\?.*vicreg"
    ):
        configuration_file("quikstart.yaml")


def _installed(folder: Path) -> Path:
    for name in (*PACKAGES, "onward"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    return folder


def _record(folder: Path, distribution: str, *files: str) -> None:
    (folder / f"{distribution}.dist-info").mkdir()
    (folder / f"{distribution}.dist-info" / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in files))


def test_packages_of_somebody_else_are_named_with_their_owner(tmp_path: Path) -> None:
    home, other, cwd = _installed(tmp_path / "home"), tmp_path / "other", tmp_path / "cwd"
    _record(home, "onward-0.1.0", "launch/__init__.py", "pipeline/cli.py")
    _record(home, "launcher-1.0", "launcher/__init__.py")
    check_owners(home, [str(home)])
    cwd.mkdir()
    (cwd / "pipeline.py").write_text("")
    with pytest.raises(ImportError, match=r"'pipeline' is '.*cwd/pipeline\.py', not Onward's\. Rename that file"):
        check_owners(home, [str(cwd), str(home)])
    (other / "workers").mkdir(parents=True)
    (other / "workers" / "__init__.py").write_text("")
    _record(other, "workers-0.9", "workers/__init__.py")
    with pytest.raises(ImportError, match=r"'workers' is that of the distribution 'workers 0\.9' .*of its own"):
        check_owners(home, [str(other), str(home)])
    with pytest.raises(ImportError, match="'launch' is not installed beside"):
        check_owners(home, [str(cwd / "nothing")])
    _record(home, "pipeline-2.0", "pipeline/__init__.py", "pipeline/more.py")
    with pytest.raises(ImportError, match=r"files of 'pipeline 2\.0' in the folders of Onward's packages"):
        check_owners(home, [str(home)])


def test_steps_come_once_each_also_where_a_run_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = StepFile(path)
    assert file.new() == []
    path.write_text(LINE % 0 + LINE % 1 + (LINE % 2)[:20])
    assert [step.step for step in file.new()] == [0, 1]
    path.write_text(LINE % 0 + LINE % 1 + LINE % 2)
    assert [(step.step, step.losses, step.eta_seconds) for step in file.new()] == [(2, {1: 0.5}, None)]
    (tmp_path / "new").write_text(LINE % 0 + LINE % 1)  # a snapshot after two steps, and a restart
    (tmp_path / "new").replace(path)
    assert file.new() == []
    path.write_text(LINE % 0 + LINE % 1 + "damage\n" + LINE % 2 + LINE % 3)
    assert [step.step for step in file.new()] == [3]
    ends = iter((False, True))
    assert [step.step for step in follow(path, lambda: next(ends), after=1)] == [2, 3]
