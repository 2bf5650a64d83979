"""Find the tensors to leave in float: sensitivity, costs, order, and real runs on a workbench.

The arithmetic is in ``algorithms.sensitivity`` and ``algorithms.fallback``; here it meets models, samples and
gates. Gates on fidelity and accuracy steer the search; those on price (size, time, counts of nodes) move the
other way, so they only judge its result.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from quantcli.algorithms.fallback import Outline, Step, first_reached, greedy_order, without_superfluous
from quantcli.algorithms.probes import PROBE_CONFIG, nodes_with_constants, tensor_groups
from quantcli.algorithms.sensitivity import (
    Noise,
    NoiseMeter,
    Run,
    Sensitivity,
    decibels,
    measure_sensitivity,
)
from quantcli.evaluate.gate_syntax import Gate
from quantcli.evaluate.gates import evaluate_gates
from quantcli.pipeline.evaluation import Evaluation
from quantcli.pipeline.node_costs import extra_seconds, total_seconds
from quantcli.pipeline.source import runnable
from quantcli.pipeline.tune_state import TuneState
from quantcli.pipeline.tune_types import Fallback, TuneOptions, TuneRow
from quantcli.pipeline.tuning_bench import TuningBench
from quantcli.progress import Progress, SilentProgress
from quantcli.quantize.plan import Action
from quantcli.quantize.recipe import Recipe, tensor_selector
from quantcli.report.schema import GateResult, Report
from quantcli.runtime.profile import profile_nodes
from quantcli.runtime.session import Session, SessionSettings

PRICES = frozenset({"latency_ratio", "size_ratio", "float_nodes", "quantized_nodes"})
"""Metrics that get worse with every tensor in float."""

SPARE_DB = 6.0
"""The order ends where the prediction is so far above the target: more than it was ever wrong."""

HOPE_DB = 0.75
"""A set that is predicted to lie so far below the target, judged by a larger one that was run, is not run."""


def with_float_tensors(recipe: Recipe, tensors: Collection[str]) -> Recipe:
    """The recipe with further tensors in float, named exactly."""
    return replace(recipe, float_tensors=(*recipe.float_tensors, *map(tensor_selector, tensors)))


def steering(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """The gates that more float tensors help to pass."""
    return tuple(gate for gate in gates if gate.metric not in PRICES and gate.severity == "fail")


def holds(result: GateResult) -> bool:
    """Whether the measured value satisfies its gate; an interval that cannot decide is no obstacle here."""
    return result.status == "pass" or (
        result.status == "undecided" and result.margin is not None and result.margin >= 0
    )


class FloatTensorSearch:
    """One search on one workbench.

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
        self._bench, self._evaluation, self._options = bench, evaluation, options
        self._gates = tuple(gates)
        self._state, self._progress = state, progress
        self._feeds = bench.samples(options.probe_samples)
        self._plan = bench.plan(bench.recipe)
        self._groups = tensor_groups(self._plan)
        self._group_of = {name: tensor.group for name, tensor in self._plan.tensors.items()}
        self._outlines: dict[frozenset[str], Outline] = {}
        self._settings = SessionSettings(threads=evaluation.threads)
        self._offsets: tuple[float, ...] = ()

    def search(self) -> Fallback:
        """Measure, order, run, and give what was found."""
        try:
            first = self._run(frozenset())
            sensitivity = self._sensitivity()
            self._offsets = self._constants(sensitivity, first)
            costs, seconds = self._costs()
            steps = greedy_order(sensitivity, self._outline, costs, self._enough)
            steps = tuple(step for step in steps if self._outline(frozenset(step.tensors)).layers)
            tensors = self._tensors(steps, sensitivity, costs)
        finally:
            self._state.save()
        return self._result(tensors, steps, sensitivity, costs, seconds)

    # Predictions ------------------------------------------------------------------------------------

    def _outline(self, tensors: frozenset[str]) -> Outline:
        if tensors not in self._outlines:
            plan = self._bench.plan(with_float_tensors(self._bench.recipe, sorted(tensors)))
            groups = (self._group_of[name] for name in plan.tensors if name in self._group_of)
            self._outlines[tensors] = Outline(
                groups=tuple(dict.fromkeys(groups)),
                nodes=frozenset(node.name for node in plan.nodes if node.action is not Action.FLOAT),
                layers=frozenset(layer.node for layer in plan.layers),
            )
        return self._outlines[tensors]

    def _sensitivity(self) -> Sensitivity:
        def load(kind: str, name: str) -> Run:
            with runnable(self._bench.probe(kind, name)) as loadable:
                return Session(loadable, replace(self._settings, config=PROBE_CONFIG)).run

        with runnable(self._bench.source.prepared) as loadable:
            reference = Session(loadable, self._settings)
        outputs = [spec.name for spec in reference.outputs if spec.dtype == "float32"]
        meter = NoiseMeter(self._feeds, reference.run, outputs)
        return measure_sensitivity(
            list(self._groups),
            nodes_with_constants(self._plan),
            load,
            meter,
            self._progress,
            known=self._state.noise,
            keep=self._state.keep_noise,
        )

    def _constants(self, sensitivity: Sensitivity, first: Report) -> tuple[float, ...]:
        """C of each output in dB: measured minus predicted without float tensors."""
        whole = self._outline(frozenset())
        predicted = decibels(sensitivity.noise(whole.groups, whole.nodes))
        measured = {out.name: out.sqnr for out in first.outputs}
        found = ((measured.get(name), value) for name, value in zip(sensitivity.outputs, predicted, strict=True))
        return tuple(
            real - value if real is not None and math.isfinite(real) and math.isfinite(value) else 0.0
            for real, value in found
        )

    def _decibels(self, noise: Noise) -> tuple[float, ...]:
        """Predicted SQNR of each output."""
        return tuple(value + c for value, c in zip(decibels(noise), self._offsets, strict=True))

    def _wanted(self) -> float | None:
        """SQNR that the gates ask for in dB; None where they ask for something else.

        A cosine similarity c of a small error is 1 − N/2.
        """
        limits = [gate.limit for gate in steering(self._gates) if gate.metric == "sqnr"]
        cosines = [gate.limit for gate in steering(self._gates) if gate.metric.startswith("cosine")]
        limits += [-10 * math.log10(2 - 2 * limit) for limit in cosines if 0 < limit < 1]
        return max(limits, default=None)

    def _enough(self, noise: Noise) -> bool:
        wanted = self._wanted()
        return wanted is not None and min(self._decibels(noise)) >= wanted + SPARE_DB

    # Costs ------------------------------------------------------------------------------------------

    def _costs(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """What each node costs more in float, and the seconds of both models where they were profiled."""
        ones = dict.fromkeys(sorted(self._outline(frozenset()).layers), 1.0)
        if self._options.minimize == "layers" or self._plan.target != "ort-cpu":
            return ones, {}
        if not self._state.times:
            self._progress.start("profile", None)
            self._state.keep_times(self._profile())
            self._progress.finish()
        return self._state.times["extra"], self._state.times["total"]

    def _profile(self) -> dict[str, dict[str, float]]:
        source = self._bench.source
        with ExitStack() as stack:
            loadable = stack.enter_context(runnable(source.prepared))
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quantcli-"))) / "model.onnx"
            self._bench.build(self._bench.recipe, path)
            floats = profile_nodes(loadable, self._feeds, self._settings)
            integers = profile_nodes(path, self._feeds, self._settings)
        return {
            "extra": extra_seconds(self._plan, source.view, floats, integers),
            "total": {"float": total_seconds(floats), "integer": total_seconds(integers)},
        }

    # Real runs --------------------------------------------------------------------------------------

    def _run(self, tensors: frozenset[str]) -> Report:
        known = self._state.runs.get(tensors)
        if known is None or (self._evaluation.timed_pairs and known.latency is None):
            self._progress.start(f"run with {len(tensors)} tensors in float", None)
            with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
                path = Path(folder) / f"{self._bench.source.path.stem}.onnx"
                self._bench.build(with_float_tensors(self._bench.recipe, sorted(tensors)), path)
                self._state.keep_run(tensors, self._evaluation.report(path, SilentProgress()))
            self._progress.finish()
        return self._state.runs[tensors]

    def _reached(self, tensors: frozenset[str]) -> bool:
        return all(map(holds, evaluate_gates(steering(self._gates), self._run(tensors))))

    def _tensors(
        self, steps: Sequence[Step], sensitivity: Sensitivity, costs: Mapping[str, float]
    ) -> tuple[str, ...]:
        """The cheapest set that reaches the target; the best one measured where none does."""
        wanted = self._wanted()
        guess = 1
        if wanted is not None:
            good = (i for i, step in enumerate(steps) if min(self._decibels(step.noise)) >= wanted)
            guess = next(good, len(steps) - 1)
        found = first_reached(len(steps), guess, lambda i: self._reached(frozenset(steps[i].tensors)))
        if found is None:
            return self._best(steps)
        whole = self._outline(frozenset())

        def price(tensor: str) -> float:
            alone = self._outline(frozenset({tensor}))
            return sum(costs.get(node, 0.0) for node in sorted(whole.nodes - alone.nodes))

        surprise = self._surprise(frozenset(steps[found].tensors), sensitivity)

        def hopeful(tensors: frozenset[str]) -> bool:
            return wanted is None or self._predicted(tensors, sensitivity) + surprise >= wanted - HOPE_DB

        return without_superfluous(steps[found].tensors, price, hopeful, self._reached)

    def _predicted(self, tensors: frozenset[str], sensitivity: Sensitivity) -> float:
        """Predicted SQNR of the worst output in dB."""
        now = self._outline(tensors)
        return min(self._decibels(sensitivity.noise(now.groups, now.nodes)))

    def _surprise(self, tensors: frozenset[str], sensitivity: Sensitivity) -> float:
        """Measured minus predicted SQNR of the worst output in dB, for a set that was run."""
        found = _worst_sqnr(self._run(tensors))
        predicted = self._predicted(tensors, sensitivity)
        if found is None or not math.isfinite(found) or not math.isfinite(predicted):
            return 0.0
        return found - predicted

    def _best(self, steps: Sequence[Step]) -> tuple[str, ...]:
        """Of the sets that were run, the one that comes nearest to the gates; the smallest of equals."""

        def merit(step: Step) -> tuple[int, float, int]:
            results = evaluate_gates(steering(self._gates), self._run(frozenset(step.tensors)))
            margins = [r.margin if r.margin is not None else -math.inf for r in results if not holds(r)]
            return sum(map(holds, results)), min(margins, default=0.0), -len(step.tensors)

        return max((step for step in steps if frozenset(step.tensors) in self._state.runs), key=merit).tensors

    # Result -----------------------------------------------------------------------------------------

    def _result(
        self,
        tensors: tuple[str, ...],
        steps: Sequence[Step],
        sensitivity: Sensitivity,
        costs: Mapping[str, float],
        seconds: Mapping[str, float],
    ) -> Fallback:
        report = self._run(frozenset(tensors))
        results = evaluate_gates(self._gates, report)
        sets = {frozenset(step.tensors): step.tensors for step in steps}
        for runs in self._state.runs:
            sets.setdefault(runs, tuple(sorted(runs)))
        rows = [
            self._row(names, sensitivity, costs, seconds, chosen=key == frozenset(tensors))
            for key, names in sets.items()
        ]
        return Fallback(
            tensors=tensors,
            reached=all(holds(result) for result in results if result.severity == "fail"),
            rows=tuple(mark_dominated(sorted(rows, key=_position))),
            gates=results,
            report=report,
            noise={name: min(decibels(noise)) for name, noise in sensitivity.tensors.items()},
            weights_noise=min(decibels(sensitivity.weights)),
            runs=len(self._state.runs),
            notes=tuple(r.sentence for r in results if r.status == "undecided"),
        )

    def _row(
        self,
        tensors: tuple[str, ...],
        sensitivity: Sensitivity,
        costs: Mapping[str, float],
        seconds: Mapping[str, float],
        *,
        chosen: bool,
    ) -> TuneRow:
        whole, now = self._outline(frozenset()), self._outline(frozenset(tensors))
        extra = sum(costs.get(node, 0.0) for node in sorted(whole.nodes - now.nodes))
        real = self._state.runs.get(frozenset(tensors))
        return TuneRow(
            tensors=tensors,
            float_layers=len(whole.layers - now.layers),
            predicted_sqnr=self._predicted(frozenset(tensors), sensitivity),
            predicted_latency=self._latency(extra, seconds),
            measured_sqnr=None if real is None else _worst_sqnr(real),
            latency=real.latency.ratio if real is not None and real.latency is not None else None,
            reached=None if real is None else self._reached(frozenset(tensors)),
            chosen=chosen,
        )

    def _latency(self, extra: float, seconds: Mapping[str, float]) -> float | None:
        """Time relative to float with ``extra`` seconds; the ratio without float tensors is as it was measured.

        Profiling itself takes time at each node, which would make small kernels look slow.
        """
        if not seconds:
            return None
        first = self._run(frozenset()).latency
        ratio = seconds["integer"] / seconds["float"] if first is None else first.ratio
        return ratio * (1 + extra / seconds["integer"])


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


def _worst_sqnr(report: Report) -> float | None:
    return min((out.sqnr for out in report.outputs if out.sqnr is not None), default=None)


def _position(row: TuneRow) -> tuple[int, float, tuple[str, ...]]:
    return row.float_layers, row.predicted_sqnr, row.tensors
