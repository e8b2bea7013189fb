"""What an expression reads, and which labels its result has: enough of PromQL to find a label that nobody sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import promql_parser
from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    LabelModifierType,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    VectorMatchCardinality,
    VectorSelector,
)

TARGET = frozenset({"job", "instance", "run"})
"""What Prometheus, and the file of targets, put on every series."""
GRAFANA = {"$instance": "127.0.0.1:1", "$stage": "1", "$run": "r"}
Labels = Mapping[str, frozenset[str]]
"""By the name of a series: the labels that it has."""


def parse(text: str) -> Any:
    """The tree of an expression, Grafana's variables filled in; raises `ValueError` where Prometheus would."""
    return promql_parser.parse(fill(text, GRAFANA))


def fill(text: str, values: Mapping[str, str]) -> str:
    """The expression with values for Grafana's variables; raises `ValueError` if one has none."""
    for name, value in values.items():
        text = text.replace(name, value)
    if "$" in text:
        raise ValueError(f"unknown variable in {text}")
    return text


def selectors(node: Any) -> Iterator[VectorSelector]:
    """Every series that the expression reads."""
    if isinstance(node, VectorSelector):
        yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        if (inner := getattr(node, name, None)) is not None:
            yield from selectors(inner)
    for inner in getattr(node, "args", ()):
        yield from selectors(inner)


def labels_of(node: Any, known: Labels) -> frozenset[str]:
    """The labels of the result; raises `ValueError` at a series or a label that does not exist."""
    if isinstance(node, VectorSelector):
        return _of_series(node, known)
    if isinstance(node, MatrixSelector):
        return _of_series(node.vector_selector, known)
    if isinstance(node, ParenExpr | SubqueryExpr | UnaryExpr):
        return labels_of(node.expr, known)
    if isinstance(node, AggregateExpr):
        return _of_aggregate(node, known)
    if isinstance(node, BinaryExpr):
        return _of_binary(node, known)
    if isinstance(node, Call):
        of_all = frozenset[str]().union(*(labels_of(argument, known) for argument in node.args))
        if node.func.name != "histogram_quantile":
            return of_all
        if "le" not in of_all:
            raise ValueError(f"histogram_quantile needs the label le in {node.prettify()}")
        return of_all - {"le"}
    return frozenset()


def _of_series(node: VectorSelector, known: Labels) -> frozenset[str]:
    if node.name is None or node.name not in known:
        raise ValueError(f"nobody makes {node.name}")
    _within({matcher.name for matcher in node.matchers.matchers}, known[node.name], node)
    return known[node.name]


def _of_aggregate(node: AggregateExpr, known: Labels) -> frozenset[str]:
    inner = labels_of(node.expr, known)
    if node.modifier is None:
        return frozenset()
    _within(set(node.modifier.labels), inner, node)
    if node.modifier.type == AggModifierType.By:
        return frozenset(node.modifier.labels)
    return inner - set(node.modifier.labels)


def _of_binary(node: BinaryExpr, known: Labels) -> frozenset[str]:
    left, right = labels_of(node.lhs, known), labels_of(node.rhs, known)
    if not left or not right:  # with a number
        return left | right
    modifier = node.modifier
    if modifier is None or modifier.matching is None:
        if left != right:
            raise ValueError(f"{sorted(left)} never match {sorted(right)} in {node.prettify()}")
        return left
    on = frozenset(modifier.matching.labels)
    if modifier.matching.type == LabelModifierType.Exclude:  # ignoring
        on = (left | right) - on
    _within(set(on), left & right, node)
    if str(node.op) in ("and", "unless") or modifier.card == VectorMatchCardinality.ManyToOne:
        return left
    return right if modifier.card == VectorMatchCardinality.OneToMany else on


def _within(used: set[str], there: frozenset[str], node: Any) -> None:
    if not used <= there:
        raise ValueError(f"no label {sorted(used - there)} in {node.prettify()}")


def labels_in_text(text: str) -> set[str]:
    """The labels that a legend, a summary or a description names."""
    return set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text))
