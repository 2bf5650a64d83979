"""Find the tensors to leave in float: a forecast, its greedy order, and real runs along it.

Gates on fidelity and accuracy steer the search; those on price (size, time, counts of nodes) move the other way,
so they only judge its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from quantcli.algorithms.fallback import Step, first_reached, without_superfluous
from quantcli.algorithms.sensitivity import decibels
from quantcli.evaluate.gate_syntax import Gate
from quantcli.evaluate.gates import evaluate_gates
from quantcli.pipeline.evaluation import Evaluation
from quantcli.pipeline.forecast import Forecast
from quantcli.pipeline.real_runs import RealRuns, worst_sqnr
from quantcli.pipeline.tune_state import TuneState
from quantcli.pipeline.tune_types import Fallback, TuneOptions, TuneRow
from quantcli.pipeline.tuning_bench import TuningBench
from quantcli.progress import Progress
from quantcli.report.schema import GateResult

PRICES = frozenset({"latency_ratio", "size_ratio", "float_nodes", "quantized_nodes"})
"""Metrics that get worse with every tensor in float."""

SPARE_DB = 6.0
"""The order ends where the prediction is so far above the target: more than it was ever wrong."""

HOPE_DB = 0.75
"""A set that is predicted to lie so far below the target, judged by a larger one that was run, is not run."""


def steering(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """The gates that more float tensors help to pass."""
    return tuple(gate for gate in gates if gate.metric not in PRICES and gate.severity == "fail")


def holds(result: GateResult) -> bool:
    """Whether the measured value satisfies its gate; an interval that cannot decide is no obstacle here."""
    return result.status == "pass" or (
        result.status == "undecided" and result.margin is not None and result.margin >= 0
    )


def wanted_sqnr(gates: Sequence[Gate]) -> float | None:
    """SQNR that the gates ask for in dB; None where they ask for something else.

    A cosine similarity c of a small error is 1 − N/2.
    """
    limits = [gate.limit for gate in gates if gate.metric == "sqnr"]
    cosines = [gate.limit for gate in gates if gate.metric.startswith("cosine")]
    limits += [-10 * math.log10(2 - 2 * limit) for limit in cosines if 0 < limit < 1]
    return max(limits, default=None)


class FloatTensorSearch:
    """One search on one bench.

    Args:
        bench: Makes plans and models.
        evaluation: Judges models.
        gates: What has to be reached.
        options: How to search.
        state: What was measured before, and where to keep what is measured now.
        progress: Told of the stages.
    """

    def __init__(
        self,
        bench: TuningBench,
        evaluation: Evaluation,
        gates: Sequence[Gate],
        options: TuneOptions,
        state: TuneState,
        progress: Progress,
    ) -> None:
        self._bench, self._options, self._state, self._progress = bench, options, state, progress
        self._gates = tuple(gates)
        self._steering = steering(gates)
        self._wanted = wanted_sqnr(self._steering)
        self._evaluation = evaluation
        self._runs = RealRuns(bench, evaluation, state, progress)

    def search(self) -> Fallback:
        """Measure, order, run, and give what was found."""
        try:
            first = self._runs.report(())
            if not self._options.survey and self._reached(()):
                return self._result((), (), None)
            forecast = Forecast(self._bench, self._evaluation, first, self._options, self._state, self._progress)
            steps = forecast.order(self._enough)
            tensors = self._tensors(steps, forecast)
        finally:
            self._state.save()
        return self._result(tensors, steps, forecast)

    def _enough(self, sqnr: float) -> bool:
        return self._wanted is not None and sqnr >= self._wanted + SPARE_DB

    def _judged(self, tensors: Sequence[str]) -> tuple[GateResult, ...]:
        return evaluate_gates(self._steering, self._runs.report(tensors))

    def _reached(self, tensors: Sequence[str]) -> bool:
        return all(map(holds, self._judged(tensors)))

    def _tensors(self, steps: Sequence[Step], forecast: Forecast) -> tuple[str, ...]:
        """The cheapest set that reaches the target; the best one measured where none does."""
        wanted, guess = self._wanted, 1
        if wanted is not None:
            good = (index for index, step in enumerate(steps) if forecast.worst(step.noise) >= wanted)
            guess = next(good, len(steps) - 1)
        found = first_reached(len(steps), guess, lambda index: self._reached(steps[index].tensors))
        if found is None:
            return self._best(steps)
        tensors = steps[found].tensors
        measured = worst_sqnr(self._runs.report(tensors))
        surprise = 0.0 if measured is None else measured - forecast.sqnr(tensors)

        def hopeful(fewer: frozenset[str]) -> bool:
            if wanted is None or not math.isfinite(surprise):
                return True
            return forecast.sqnr(fewer) + surprise >= wanted - HOPE_DB

        return without_superfluous(
            tensors, lambda name: forecast.cost((name,)), hopeful, lambda fewer: self._reached(tuple(fewer))
        )

    def _best(self, steps: Sequence[Step]) -> tuple[str, ...]:
        """Of the sets that were run, the one that comes nearest to the gates; the smallest of equals."""

        def merit(step: Step) -> tuple[int, float, int]:
            results = self._judged(step.tensors)
            margins = [r.margin if r.margin is not None else -math.inf for r in results if not holds(r)]
            return sum(map(holds, results)), min(margins, default=0.0), -len(step.tensors)

        return max((step for step in steps if self._runs.known(step.tensors) is not None), key=merit).tensors

    # Result -----------------------------------------------------------------------------------------

    def _result(self, tensors: tuple[str, ...], steps: Sequence[Step], forecast: Forecast | None) -> Fallback:
        report = self._runs.report(tensors)
        results = evaluate_gates(self._gates, report)
        sets = {frozenset(step.tensors): step.tensors for step in steps}
        if forecast is not None:
            for run in self._runs.sets:
                sets.setdefault(run, tuple(sorted(run)))
        rows = [self._row(names, forecast, chosen=key == frozenset(tensors)) for key, names in sets.items()]
        noise = {} if forecast is None else forecast.sensitivity.tensors
        return Fallback(
            tensors=tensors,
            reached=all(holds(result) for result in results if result.severity == "fail"),
            rows=tuple(mark_dominated(sorted(rows, key=_position))),
            gates=results,
            report=report,
            noise={name: min(decibels(part)) for name, part in noise.items()},
            weights_noise=None if forecast is None else min(decibels(forecast.sensitivity.weights)),
            runs=len(self._runs.sets),
            notes=tuple(r.sentence for r in results if r.status == "undecided"),
        )

    def _row(self, tensors: tuple[str, ...], forecast: Forecast | None, *, chosen: bool) -> TuneRow:
        assert forecast is not None
        real = self._runs.known(tensors)
        return TuneRow(
            tensors=tensors,
            float_layers=forecast.float_layers(tensors),
            predicted_sqnr=forecast.sqnr(tensors),
            predicted_latency=forecast.latency(tensors),
            measured_sqnr=None if real is None else worst_sqnr(real),
            latency=real.latency.ratio if real is not None and real.latency is not None else None,
            reached=None if real is None else self._reached(tensors),
            chosen=chosen,
        )


def mark_dominated(rows: Sequence[TuneRow]) -> list[TuneRow]:
    """The rows, those marked that another one beats in noise and price at once (Pareto)."""

    def figures(row: TuneRow) -> tuple[float, float]:
        decibel = row.predicted_sqnr if row.measured_sqnr is None else row.measured_sqnr
        return -decibel, float(row.float_layers) if row.predicted_latency is None else row.predicted_latency

    values = [figures(row) for row in rows]
    return [
        replace(row, dominated=any(a[0] <= b[0] and a[1] <= b[1] and a != b for a in values))
        for row, b in zip(rows, values, strict=True)
    ]


def _position(row: TuneRow) -> tuple[int, float, tuple[str, ...]]:
    return row.float_layers, row.predicted_sqnr, row.tensors
