"""The configuration and the rules for Prometheus as files: what they ask for exists, and all of it is of use."""

from __future__ import annotations

import re

import pytest

from tests.deploy.parts import PROMETHEUS, Expression, of_panels, of_rules, read_yaml, rules, series
from tests.deploy.promql import labels_in_text, labels_of, parse, selectors
from workers.observing.catalogue import CATALOGUE

SEVERITIES = {"critical", "warning", "info"}


def test_the_configuration_reads_the_rules_and_the_targets_beside_it() -> None:
    config = read_yaml(PROMETHEUS / "prometheus.yml")
    assert config["rule_files"] == ["rules.yml"]
    (job,) = config["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == ["targets/*.json"]
    assert not job.get("honor_labels"), "else onward_run_info may have another `run` than all other series of a target"
    for rule in [*rules("record").values(), *rules("alert").values()]:
        for chosen in re.findall(r'job="([^"]*)"', rule["expr"]):
            assert chosen == job["job_name"], "a rule about a job that nobody scrapes"


@pytest.mark.parametrize("rule", of_rules(), ids=lambda rule: rule.where)
def test_a_rule_asks_for_what_there_is(rule: Expression) -> None:
    labels = labels_of(parse(rule.text), series())
    for text in rule.names:
        assert labels_in_text(text) <= labels, f"{rule.where}: its text names labels that its result has not"


@pytest.mark.parametrize("name", rules("record"))
def test_a_recording_rule_is_named_by_its_level_and_used(name: str) -> None:
    level, metric, operation = name.split(":")
    assert level in ("run", "stage")
    assert ("stage" in series()[name]) == (level == "stage")
    assert metric.startswith("onward_")
    assert operation
    readers = [node.name for expression in of_panels() + of_rules() for node in selectors(parse(expression.text))]
    assert name in readers, "neither the dashboard nor a rule reads it"


@pytest.mark.parametrize("name", rules("alert"))
def test_an_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = rules("alert")[name]
    assert rule["labels"]["severity"] in SEVERITIES
    assert "{{ $labels.run }}" in rule["annotations"]["summary"], "which run?"
    assert len(rule["annotations"]["description"].split(". ")) >= 2, "what happened, and what to do"
    assert rule["for"] if name not in COUNTED else "increase(" in rule["expr"]


COUNTED = {"NonFiniteSteps", "RestartsRepeated", "FeedWorkersDying", "ImagesSkipped"}
"""They look back over a time of their own, and need not wait."""


@pytest.mark.parametrize("name", rules("alert"))
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_nothing_does(name: str) -> None:
    cases = read_yaml(PROMETHEUS / "rules_test.yml")["tests"]
    fires = f'alertname="{name}"'
    asked = [(question["expr"], question["exp_samples"]) for case in cases for question in case["promql_expr_test"]]
    assert any(fires in sample["labels"] for _, samples in asked for sample in samples)
    assert ("ALERTS", []) in asked


def test_every_metric_is_read_by_a_rule_or_a_panel() -> None:
    read = {node.name for expression in of_rules() + of_panels() for node in selectors(parse(expression.text))}
    of_histograms = {re.sub("_(bucket|sum|count)$", "", str(name)) for name in read}
    unread = {metric.name for metric in CATALOGUE} - read - of_histograms
    assert not unread, f"nobody sees {sorted(unread)}"


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("rate(onward_step)", "expected type matrix"),
        ("onward_stepp", "nobody makes onward_stepp"),
        ('onward_step{term="total"}', "no label ['term']"),
        ("sum by (direction) (onward_step)", "no label ['direction']"),
        ("onward_step + on (part) onward_step", "no label ['part']"),
        ("onward_step / onward_run_steps", "never match"),
        ("histogram_quantile(0.5, sum by (stage) (onward_snapshot_seconds_bucket))", "needs the label le"),
        ('onward_step{stage="$replica"}', "unknown variable"),
    ],
)
def test_the_check_itself(expression: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        labels_of(parse(expression), series())
