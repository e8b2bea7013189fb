"""A plan as a table: what a row says, in how many columns of a terminal."""

from __future__ import annotations

import pytest

from launch.partition.findings import WhatIfFindings
from launch.results.plan_tables import devices_in_words, digits, plan_grid, units_in_words, what_if_grid
from tests.launch.results.planned import findings, setting, stage


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (["stem"], "stem"),
        (["stem", "layer1.0", "layer1.1"], "stem to layer1.1"),
        (["encoder.layers.encoder_layer_9"], "layer_9"),
        (["conv_proj", "encoder.layers.encoder_layer_11"], "conv_proj to layer_11"),
        (["features.3", "features.12"], "features.3 to 12"),
        (["features.5.3", "features.7.1"], "features.5.3 to 7.1"),
        (["features.5.8", "backbone.features"], "features.5.8 to features"),
        (["network.stages.1.blocks.0", "network.stages.1.blocks.11"], "blocks.0 to 11"),
        (["backbone.encoder.block_3", "backbone.encoder.block_12"], "block_3 to 12"),
    ],
)
def test_units_are_named_by_the_first_and_the_last(units: list[str], text: str) -> None:
    assert units_in_words(units) == text


@pytest.mark.parametrize(
    ("devices", "text"),
    [
        (["cpu", "cpu"], "cpu"),
        (["cuda:3"], "3"),
        (["cuda:3", "cuda:4", "cuda:5"], "3-5"),
        (["2: cuda:7"], "2: 7"),
        (["2: cuda:0", "2: cuda:1"], "2: 0-1"),
        (["2: cuda:7", "3: cuda:0", "4: cuda:0"], "2-4:"),
    ],
)
def test_devices_of_replicas_are_named_by_the_first_and_the_last(devices: list[str], text: str) -> None:
    assert devices_in_words(devices) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (0.0123, "0.01"), (1.5, "1.50"), (99.94, "99.9"), (12345.6, "12,346")]
)
def test_numbers_have_three_digits_or_two_behind_the_point(value: float, text: str) -> None:
    assert digits(value) == text


def test_a_row_has_what_a_stage_takes_and_the_rate_of_its_link() -> None:
    made = findings(setting(stage(1, devices=("cuda:0", "cuda:1"), busy=0.98), stage(2)))
    grid = plan_grid(made, "title")
    assert grid.head[4] == ("GiB of", "80.0")
    assert grid.rows[0] == ("1", "layer1.0 to layer1.1", "2", "0-1", "10.0", "250", "98", "3.91")


def test_a_processor_has_no_column_for_the_gpus() -> None:
    grids = [plan_grid(findings(setting(stage(1, devices=(device,)))), "title") for device in ("cpu", "cuda:0")]
    assert [("GPU",) in grid.head for grid in grids] == [False, True]
    assert ("host:", "GPU") in plan_grid(findings(setting(stage(1, devices=("1: cuda:0",)))), "title").head
    assert all(len(grid.head) == len(grid.rows[0]) for grid in grids)


def test_two_settings_stand_side_by_side_also_with_other_numbers_of_stages() -> None:
    one = setting(stage(1), stage(2))
    other = setting(stage(1), limit="link", limiting="stage 1", full=("stage 1 needs more",))
    found = WhatIfFindings(device="h100", estimated=True, given=one, changed=other, seconds=1.0)
    rows = {row[0]: row[1:] for row in what_if_grid(found, ["model.cuts=[]"]).rows}
    assert rows["limit"] == ("stage 1", "link into stage 1")
    assert rows["busy, stage 2, %"] == ("50", "-")
    assert rows["memory"] == ("fits", "does not fit")
