"""`init_from` as a path or as a section, for all stages or one, from the file and from the command line."""

from __future__ import annotations

from pathlib import Path

from pipeline.validation.loading import load_config, parse_config


def test_a_path_is_short_for_the_section(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("init_from: /weights/a.pth\nstages: {2: {init_from: /weights/b.pth}, 3: {init_from: none}}\n")
    config = load_config(file, ["init_from.heads=false", "stages.2.init_from.allow=[fc.*]"])
    found = [config.stage(index).init_from for index in (1, 2, 3)]
    assert [each.path for each in found] == ["/weights/a.pth", "/weights/b.pth", None]
    assert [each.heads for each in found] == [False] * 3
    assert [each.allow for each in found] == [(), ("fc.*",), ()]


def test_nothing_is_given_by_default() -> None:
    config = parse_config({})
    assert config.init_from.path is None
    assert config.learners == (1, 2, 3, 4)
