"""Paths mean the same later and elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.validation.loading import load_config

KEYS = ("data.root", "evaluation.corruptions.folder", "evaluation.corruptions.baseline")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "c.yaml").write_text("")
    return tmp_path / "c.yaml"


def value(path: Path, key: str, given: str) -> str:
    found = load_config(path, [f"{key}={given}"])
    for name in key.split("."):
        found = getattr(found, name)
    return str(found)


@pytest.mark.parametrize("key", KEYS)
def test_what_is_read_has_an_absolute_path(empty: Path, key: str) -> None:
    """A run whose data lay in `images` could not be evaluated from another folder."""
    assert value(empty, key, "images") == str(empty.parent / "images")
    assert value(empty, key, "~/images") == str(empty.parent / "home" / "images")
    assert value(empty, key, "/images") == "/images"


def test_other_data_sets_too(empty: Path) -> None:
    found = load_config(empty, ["evaluation.transfer=[{name: cifar10, root: ~/c}, {name: image_folder, root: d}]"])
    assert [other.root for other in found.evaluation.transfer] == [
        str(empty.parent / "home" / "c"), str(empty.parent / "d")
    ]  # fmt: skip


def test_a_run_goes_where_the_user_means(empty: Path) -> None:
    """`run_dir=~/runs/a` made a folder called `~`, which somebody will want to remove with `rm -r ~`."""
    assert value(empty, "run_dir", "~/runs/a") == str(empty.parent / "home" / "runs" / "a")
    assert value(empty, "run_dir", "runs/a") == "runs/a"
    assert load_config(empty).run_dir is None


@pytest.mark.parametrize("key", [*KEYS, "run_dir"])
def test_a_home_that_is_not_known_is_named(empty: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}: the home directory in '~nobodyhere/x' is not known"):
        load_config(empty, [f"{key}=~nobodyhere/x"])


@pytest.mark.parametrize("path", ["$DATA/images", "${DATA}/images"])
def test_every_host_may_have_its_data_in_another_place(empty: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/big/disk")
    assert load_config(empty, [f"data.root={path}"]).data.root == "/big/disk/images"
    monkeypatch.delenv("DATA")
    named = rf"^data\.root: the variable DATA in '{re.escape(path)}' is not set on .*\. Set DATA"
    with pytest.raises(ConfigError, match=named):
        load_config(empty, [f"data.root={path}"])


def test_a_dollar_that_names_nothing_stays(empty: Path) -> None:
    assert load_config(empty, ["data.root=/big/$5"]).data.root == "/big/$5"


def test_an_address_on_a_network_is_no_folder(empty: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.root: 's3://bucket/x' is the address of something on a network"):
        load_config(empty, ["data.root=s3://bucket/x"])
