"""Metrics of the user's own: ``[NAME=]FILE.py:FUNCTION`` or ``[NAME=]MODULE:FUNCTION``. They run the user's code.

* A **function** is called once for each call of each model, with the outputs, a dictionary of arrays by the
  names of the original's outputs, and returns a number: the score of that sample. The metric is the mean, and
  its intervals come from drawing samples again (``core.bootstrap``); where every score is 0 or 1, it is a rate,
  and has the intervals of rates. A sample without a score (None) counts nowhere, if it has none for both models.
* A **class** is made once for each model; ``update`` is called in the function's place and returns nothing,
  ``result()`` the number in the end. What a whole set gives cannot be drawn again, so it has no interval.

Behind the outputs, either may take parameters named ``labels`` (the call's rows of --labels, or None),
``inputs`` (what the model was fed with) and ``index`` (the number of the call); they are given by name.
Attributes of the function or class: ``better = "lower"`` where less is better (else "higher"); the first paragraph
of its docstring is the metric's sentence.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantcli.core.rates import PairedSums, count_paired, merge_paired
from quantcli.data.problems import printable
from quantcli.data.spec import named_function
from quantcli.data.user_code import UserCode, load_callable, running
from quantcli.errors import DataError, UsageError
from quantcli.evaluate.rate_facts import paired_metric
from quantcli.evaluate.scoring import Better, Observation, mean_metric, plain_metric
from quantcli.report.schema import TaskMetric

EXTRAS = ("labels", "inputs", "index")
"""What a metric may take besides the outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMetric:
    """A metric that was loaded.

    Attributes:
        name: As gates call it.
        sentence: What it is.
        better: Which way is better.
        code: The function or class.
        wants: Those of ``EXTRAS`` that it takes.
        needs_labels: Whether it cannot do without labels.
    """

    name: str
    sentence: str
    better: Better
    code: UserCode
    wants: tuple[str, ...]
    needs_labels: bool = False

    @property
    def of_sets(self) -> bool:
        """Whether it is a class, which scores a whole set."""
        return inspect.isclass(self.code.function)


def load_metric(text: str) -> UserMetric:
    """Load ``[NAME=]FILE.py:FUNCTION``.

    Raises:
        UsageError: G108, the text has no such form, or the name cannot be that of a metric.
        DataError: D103 or D109, the code does not load.
    """
    name, where, function = _parts(text)
    file = re.split(r"[/\\]", where)[-1]
    label = f"{printable(file)}:{function}"
    code = load_callable(
        where, function, label, "a function of a model's outputs, or a class with update and result"
    )
    target: Any = code.function
    better = getattr(target, "better", "higher")
    if better not in ("higher", "lower"):
        raise DataError("G110", f"'{label}' has better = {better!r}", hint='write "higher" or "lower"')
    if inspect.isclass(target):
        missing = [part for part in ("update", "result") if not callable(getattr(target, part, None))]
        if missing:
            raise DataError(
                "G110",
                f"the class '{label}' has no '{missing[0]}'",
                hint="a class that scores a set has update(self, outputs) and result(self)",
            )
    called = getattr(target, "update", target) if inspect.isclass(target) else target
    doc = " ".join((inspect.getdoc(target) or "").partition("\n\n")[0].split())
    return UserMetric(
        name=name,
        sentence=printable(doc) if doc else f"what {label} says",
        better="lower" if better == "lower" else "higher",
        code=code,
        wants=_wants(called, label),
        needs_labels=_needs_labels(called),
    )


def _parts(text: str) -> tuple[str, str, str]:
    """(name, FILE.py or MODULE, FUNCTION)."""
    name, target = None, text.strip()
    if "=" in target and (found := named_function(target.partition("=")[2])) is not None:
        name = target.partition("=")[0]
    else:
        found = named_function(target)
    if found is None:
        raise UsageError(
            "G108",
            f"the metric '{printable(text)}' names no function",
            hint="write FILE.py:FUNCTION or MODULE:FUNCTION, with NAME= in front for another name",
        )
    name = found[1] if name is None else name
    if not name.isidentifier() or name.endswith("_drop"):
        raise UsageError(
            "G108",
            f"a metric cannot be named '{printable(name)}'",
            hint="letters, digits and _; NAME_drop is the change between the models. Write NAME=FILE.py:FUNCTION",
        )
    return name, *found


def _wants(function: object, label: str) -> tuple[str, ...]:
    """Those of ``EXTRAS`` that a function takes."""
    assert callable(function)
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):  # built in: it says nothing of its parameters
        return ()
    known = tuple(extra for extra in EXTRAS if extra in parameters)
    needed = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in (*EXTRAS, "self")
    ]
    if len(needed) > 1:
        raise DataError(
            "G110",
            f"the metric '{label}' needs '{needed[1]}', which is not given",
            hint=f"it is given the outputs, and by name {', '.join(EXTRAS)}",
        )
    return known


def _needs_labels(function: object) -> bool:
    """Whether labels have to be given: the parameter has no default."""
    assert callable(function)
    try:
        found = inspect.signature(function).parameters.get("labels")
    except (ValueError, TypeError):  # built in
        return False
    return found is not None and found.default is found.empty


class UserScorer:
    """Calls a metric of the user's for both models."""

    def __init__(self, metric: UserMetric) -> None:
        self._metric = metric
        self._scores: tuple[list[float], list[float]] = ([], [])
        self._skipped = 0
        self._sets = tuple(self._called(metric.code.function) for _ in range(2)) if metric.of_sets else ()

    def _called(self, function: Any, *values: object, **extras: object) -> Any:
        code = self._metric.code
        with running(code.label, code.home, code.file):
            return function(*values, **extras)

    def observe(self, call: Observation) -> None:
        """Score one call.

        Raises:
            DataError: D109, the code failed; G110, it gave no number.
        """
        known: Mapping[str, object] = {"labels": call.labels, "inputs": dict(call.inputs), "index": call.index}
        extras = {name: known[name] for name in self._metric.wants}
        outputs = (dict(call.original), dict(call.quantized))
        if self._sets:
            for scored, own in zip(self._sets, outputs, strict=True):
                self._called(scored.update, own, **extras)
            self._scores[0].append(0.0)
            return
        found = [self._called(self._metric.code.function, own, **extras) for own in outputs]
        missing = [value is None for value in found]
        if all(missing):
            self._skipped += 1
            return
        if any(missing):
            raise DataError(
                "G110",
                f"the metric '{self._metric.code.label}' has a score for one model only in call {call.index}",
                hint="return None only by what the truth says, and a number otherwise",
            )
        for scores, value in zip(self._scores, found, strict=True):
            scores.append(self._number(value, f"in call {call.index}"))

    def _number(self, value: object, where: str) -> float:
        try:
            array = np.asarray(value, dtype=np.float64)
        except (ValueError, TypeError):
            array = np.empty(0)
        if array.size != 1:
            raise DataError(
                "G110",
                f"the metric '{self._metric.code.label}' gave {type(value).__name__} {where}, not a number",
                hint="a metric is one number; write one function for each",
            )
        return float(array.reshape(-1)[0])

    def results(self) -> tuple[TaskMetric, ...]:
        """The metric.

        Raises:
            DataError: G110, there is no score at all.
        """
        metric = self._metric
        if self._sets:
            values = [self._number(self._called(scored.result), "as its result") for scored in self._sets]
            count = len(self._scores[0])
            return (plain_metric(metric.name, metric.sentence, metric.better, count, values[0], values[1]),)
        original, quantized = self._scores
        if not original:
            raise DataError(
                "G110", f"the metric '{metric.code.label}' gave no score for any of {self._skipped} samples"
            )
        if all(value in (0.0, 1.0) for value in (*original, *quantized)):
            found = paired_metric(metric.name, metric.sentence, _paired(original, quantized), metric.better)
            assert found is not None
            return (found,)
        return (mean_metric(metric.name, metric.sentence, metric.better, original, quantized),)


def _paired(original: list[float], quantized: list[float]) -> PairedSums:
    """Sums of scores that are 0 or 1: shares of the samples."""
    sums = PairedSums()
    for first, second in zip(original, quantized, strict=True):
        sums = merge_paired(
            sums, count_paired(int(first > second), int(second > first), int(first == second == 1), 1)
        )
    return sums
