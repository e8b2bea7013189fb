"""What the dashboard of all runs shows: one line for each, how fast they are, and which of them needs somebody."""

from __future__ import annotations

from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue
from panels import GOOD_TO_BAD, Row, levels, lines, listing, now, number, query, states

OF_RUNS = '{job="onward"}'
FIRING = '{job="onward", alertstate="firing"}'
ONE_RUN = "/d/onward-run?var-run=${__value.raw}&var-datasource=${datasource}&${__url_time_range}"
"""Where the dashboard is of the run in a cell of a table."""


def each(metric: str) -> str:
    """A metric of every run; what goes on after a restart is the same line."""
    return f"max by (run) ({metric}{OF_RUNS})"


def total(label: str, metric: str) -> str:
    """For every run the sum over one label, of which each value counts once, however many processes tell it."""
    return f"sum by (run) (max by (run, {label}) ({metric}{OF_RUNS}))"


def by_run(metric: str) -> Dataquery:
    """A line for every run."""
    return query(each(metric), "{{run}}")


def state() -> Row:
    """All of them together, then one line for each."""
    firing = f"count(max by (run, alertname, stage) (ALERTS{FIRING})) or vector(0)"
    return "State", [
        number("Runs", "That answer now.", query(f"count({each('onward_run_steps')}) or vector(0)", "runs"), 4),
        number("Not answering", "Addresses of runs at which nobody answers.",
               query(f"count(up{OF_RUNS} == 0) or vector(0)", "addresses"), 5).thresholds(levels(GOOD_TO_BAD)),
        number("Alerts firing", "That Prometheus has firing now.", query(firing, "firing"), 5)
        .thresholds(levels(GOOD_TO_BAD)),
        number("Images/s, together", "Over the last minute.",
               query(f"sum({each('run:onward_samples:rate1m')})", "all runs"), 5),
        number("Links, together", "Bytes a second from stage to stage.",
               query(f"sum({each('run:onward_link_bytes:rate1m')})", "all runs"), 5).unit("Bps"),
        listing("Runs, one by one", "A click on a run leads to its dashboard.", {
            "images/s": (now(each("run:onward_samples:rate1m")), "short"),
            "goodput": (now(each("onward_goodput_ratio")), "percentunit"),
            "bubble": (now(each("run:onward_bubble:share1m")), "percentunit"),
            "links": (now(each("run:onward_link_bytes:rate1m")), "Bps"),
            "done": (now(each("run:onward_progress:ratio")), "percentunit"),
            "time left": (now(each("onward_eta_seconds")), "dthms"),
            "alarms": (now(total("alarm", "onward_alarm")), "short"),
            "restarts": (now(total("stage", "onward_restarts_total")), "short"),
        }).override_by_name("run", [DynamicConfigValue("links", [{"title": "Its dashboard", "url": ONE_RUN}])]),
    ]  # fmt: skip


def speed() -> Row:
    """Which run is how fast, and what holds it up."""
    return "Speed", [
        lines("Images/s", "That have gone through all stages, over the last minute.",
              by_run("run:onward_samples:rate1m"), width=12).min(0),
        lines("Goodput", "Share of the last ten minutes in which new steps were made; the rest went into starts, "
              "restarts and steps that were made again.",
              by_run("run:onward_goodput:share10m"), width=12).unit("percentunit").min(0).max(1),
        lines("Bubble", "Share of the time that stages wait for input or for room, mean over the stages of a run.",
              by_run("run:onward_bubble:share1m"), width=12).unit("percentunit").min(0).max(1),
        lines("Links", "Bytes a second from stage to stage, over all links of a run; none where all stages are one "
              "process.", by_run("run:onward_link_bytes:rate1m"), width=12).unit("Bps").min(0),
    ]  # fmt: skip


def alerts() -> Row:
    """What is wrong, and since when."""
    since = f"time() - ALERTS_FOR_STATE{OF_RUNS} and ignoring (alertstate) ALERTS{FIRING}"
    return "Alerts: what is wrong, and since when", [
        listing("Alerts, one by one", "None where nothing is wrong; the page /alerts of Prometheus says what to do.",
                {"for": (now(f"max by (run, alertname, severity, stage) ({since})"), "dthms")}, 12),
        states("Alerts, over time", "Red while Prometheus has one firing.",
               query(f"max by (run, alertname) (ALERTS{FIRING})", "{{run}} {{alertname}}"), 12),
    ]  # fmt: skip


def rows() -> list[Row]:
    """Headlines and what stands below them."""
    return [state(), speed(), alerts()]
