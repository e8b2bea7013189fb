"""The files of deploy/prometheus and deploy/grafana, and what the metrics and rules in them are called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.promql import TARGET, labels_of, parse
from workers.observing.catalogue import CATALOGUE

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROMETHEUS, GRAFANA = DEPLOY / "prometheus", DEPLOY / "grafana"
DASHBOARDS = ("onward", "onward-runs")
"""One run, and all runs."""
ALERT = frozenset({"alertname", "alertstate", "severity", "stage", "replica", "alarm", "kind"})
"""What labels of an alert are made of, beside those of its target."""


@dataclass(frozen=True)
class Expression:
    """One expression and where it stands; `names` are texts that use its labels."""

    where: str
    text: str
    names: tuple[str, ...] = ()


@cache
def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """By name, the rules of one kind: `record` or `alert`."""
    groups = read_yaml(PROMETHEUS / "rules.yml")["groups"]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def dashboard_file(name: str) -> Path:
    return GRAFANA / "dashboards" / f"{name}.json"


def dashboard(name: str = "onward") -> dict[str, Any]:
    value: dict[str, Any] = json.loads(dashboard_file(name).read_text(encoding="utf-8"))
    return value


@cache
def panels(*names: str) -> list[dict[str, Any]]:
    """Those with queries, of these dashboards or of all."""
    return [panel for name in names or DASHBOARDS for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def of_rules() -> list[Expression]:
    recorded = [Expression(name, rule["expr"]) for name, rule in rules("record").items()]
    return recorded + [
        Expression(name, rule["expr"], tuple(rule["annotations"].values())) for name, rule in rules("alert").items()
    ]


def of_panels(*names: str) -> list[Expression]:
    """All questions of these dashboards, or of all."""
    return [
        Expression(f"{name}: {panel['title']} {target['refId']}", target["expr"], (target.get("legendFormat", ""),))
        for name in names or DASHBOARDS
        for panel in panels(name)
        for target in panel["targets"]
    ]


@cache
def series() -> dict[str, frozenset[str]]:
    """The labels of everything that can be asked for: the catalogue, the recording rules, and what Prometheus adds."""
    known = {"up": TARGET, "ALERTS": TARGET | ALERT, "ALERTS_FOR_STATE": TARGET | ALERT - {"alertstate"}}
    for metric in CATALOGUE:
        labels = TARGET | set(metric.labels)
        if metric.kind == "histogram":
            known |= {f"{metric.name}_{part}": labels for part in ("sum", "count")}
            known[f"{metric.name}_bucket"] = labels | {"le"}
        else:
            known[metric.name] = labels
    for name, rule in rules("record").items():
        known[name] = labels_of(parse(rule["expr"]), known)
    return known
