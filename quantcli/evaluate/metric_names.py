"""Finding the row of a metric by its name: the table's, those with any number of classes, and the user's own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from quantcli.evaluate.metric_table import METRICS, Better, Metric, Needs

_TOP_K = re.compile(r"top([1-9][0-9]{0,5})_(agreement|accuracy|accuracy_drop)")

_ALIASES = {"top1_accuracy": "accuracy", "top1_accuracy_drop": "accuracy_drop"}


class NamedMetric(Protocol):
    """What is needed of a metric of the user's own."""

    @property
    def name(self) -> str:
        """As gates call it."""

    @property
    def sentence(self) -> str:
        """What it is."""

    @property
    def better(self) -> str:
        """Which way is better: "higher" or "lower"."""


def find_metric(name: str, given: Mapping[str, Metric] | None = None) -> Metric | None:
    """The row of a metric; None where there is none.

    Args:
        name: As written in a gate.
        given: Rows that are not built in, by name.
    """
    if name in _ALIASES:
        name = _ALIASES[name]
    if name in METRICS:
        return METRICS[name]
    if (count := top_k(name)) is not None:
        usual = METRICS[name.replace(f"top{count}_", "top5_")]
        text = usual.sentence.partition("; any other number")[0]
        sentence = text.replace("5 best", f"{count} best").replace("top-5", f"top-{count}")
        return dataclasses.replace(usual, name=name, sentence=sentence)
    return (given or {}).get(name)


def top_k(name: str) -> int | None:
    """K of ``topK_agreement``, ``topK_accuracy`` or ``topK_accuracy_drop``, above 1; None for other names."""
    found = _TOP_K.fullmatch(name)
    count = 0 if found is None else int(found[1])
    return count if count > 1 else None


def given_metrics(metrics: Iterable[NamedMetric]) -> Mapping[str, Metric]:
    """Rows of the user's metrics and their drops, by name."""
    rows: dict[str, Metric] = {}
    for metric in metrics:
        higher = metric.better == "higher"
        rows[metric.name] = Metric(
            name=metric.name,
            sentence=metric.sentence,
            better=Better.HIGHER if higher else Better.LOWER,
            needs=Needs.METRIC,
            units={"%": 0.01},
        )
        rows[f"{metric.name}_drop"] = Metric(
            name=f"{metric.name}_drop",
            sentence=f"change for the worse of {metric.name}: "
            + ("original minus quantized model" if higher else "quantized model minus original"),
            better=Better.LOWER,
            needs=Needs.METRIC,
            units={"pp": 0.01, "%": 0.01},
        )
    return rows
