"""What a conversion with some tensors in float will be like, from measurements of its parts.

Noise is predicted from the sensitivity of the plan's parts (``algorithms.sensitivity``), with the constant that
the first real run gives; time from profiles of the float model and of the first conversion.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from quantcli.algorithms.fallback import Outline, Step, greedy_order
from quantcli.algorithms.probes import PROBE_CONFIG, nodes_with_constants, tensor_groups
from quantcli.algorithms.sensitivity import Noise, NoiseMeter, Run, Sensitivity, decibels, measure_sensitivity
from quantcli.ops.targets import TARGETS
from quantcli.pipeline.evaluation import Evaluation
from quantcli.pipeline.node_costs import extra_seconds, total_seconds
from quantcli.pipeline.real_runs import with_float_tensors
from quantcli.pipeline.source import runnable
from quantcli.pipeline.tune_state import TuneState
from quantcli.pipeline.tune_types import TuneOptions
from quantcli.pipeline.tuning_bench import TuningBench
from quantcli.progress import Progress
from quantcli.quantize.plan import Action
from quantcli.report.schema import Report
from quantcli.runtime.profile import profile_nodes
from quantcli.runtime.session import Session, SessionSettings


class Forecast:
    """Predictions for one bench; the parts are measured when it is made, if the state does not know them.

    Args:
        bench: Makes plans and models.
        evaluation: Samples on which the noise is measured. Not those of calibration: on these nothing is clipped,
            while unseen samples exceed the ranges (squeezenet: 1.3 dB that no tensor accounts for, against 0.2).
        first: The real run without float tensors.
        options: How to measure.
        state: What was measured before, and where to keep what is measured now.
        progress: Told of the stages.

    Attributes:
        sensitivity: Noise of the parts.
    """

    def __init__(
        self,
        bench: TuningBench,
        evaluation: Evaluation,
        first: Report,
        options: TuneOptions,
        state: TuneState,
        progress: Progress,
    ) -> None:
        self._bench, self._options, self._state, self._progress = bench, options, state, progress
        self._settings = SessionSettings(threads=evaluation.threads)
        self._feeds = evaluation.some(options.probe_samples)
        self._plan = bench.plan(bench.recipe)
        self._group_of = {name: tensor.group for name, tensor in self._plan.tensors.items()}
        self._outlines: dict[frozenset[str], Outline] = {}
        self.sensitivity = self._measure()
        self._constants = self._find_constants(first)
        self._costs, self._seconds = self._find_costs()
        self._first_latency = None if first.latency is None else first.latency.ratio

    def outline(self, tensors: Collection[str]) -> Outline:
        """What stays quantized with ``tensors`` in float."""
        key = frozenset(tensors)
        if key not in self._outlines:
            plan = self._bench.plan(with_float_tensors(self._bench.recipe, key))
            groups = (self._group_of[name] for name in plan.tensors if name in self._group_of)
            self._outlines[key] = Outline(
                groups=tuple(dict.fromkeys(groups)),
                nodes=frozenset(node.name for node in plan.nodes if node.action is not Action.FLOAT),
                layers=frozenset(layer.node for layer in plan.layers),
            )
        return self._outlines[key]

    def sqnr(self, tensors: Collection[str]) -> float:
        """Predicted SQNR of the worst output in dB."""
        now = self.outline(tensors)
        return self.worst(self.sensitivity.noise(now.groups, now.nodes))

    def worst(self, noise: Noise) -> float:
        """SQNR of the worst output in dB for a predicted noise."""
        return min(value + c for value, c in zip(decibels(noise), self._constants, strict=True))

    def float_layers(self, tensors: Collection[str]) -> int:
        """Layers that ``tensors`` make float."""
        return len(self.outline(()).layers - self.outline(tensors).layers)

    def cost(self, tensors: Collection[str]) -> float:
        """Σ c_n over the nodes that ``tensors`` make float."""
        lost = self.outline(()).nodes - self.outline(tensors).nodes
        return sum(self._costs.get(node, 0.0) for node in sorted(lost))

    def latency(self, tensors: Collection[str]) -> float | None:
        """Predicted time relative to float; None without profiles.

        The ratio without float tensors is as it was measured: profiling takes time at each node, which would
        make small kernels look slow.
        """
        if not self._seconds:
            return None
        ratio = self._first_latency
        if ratio is None:
            ratio = self._seconds["integer"] / self._seconds["float"]
        return ratio * (1 + self.cost(tensors) / self._seconds["integer"])

    def order(self, enough: Callable[[float], bool]) -> tuple[Step, ...]:
        """Greedy order until the predicted SQNR is ``enough``; sets without a quantized layer are left out."""
        steps = greedy_order(self.sensitivity, self.outline, self._costs, lambda noise: enough(self.worst(noise)))
        return tuple(step for step in steps if self.outline(step.tensors).layers)

    # Measurements -----------------------------------------------------------------------------------

    def _measure(self) -> Sensitivity:
        def load(kind: str, name: str) -> Run:
            with runnable(self._bench.probe(kind, name)) as loadable:
                return Session(loadable, replace(self._settings, config=PROBE_CONFIG)).run

        with runnable(self._bench.source.prepared) as loadable:
            reference = Session(loadable, self._settings)
        outputs = [spec.name for spec in reference.outputs if spec.dtype == "float32"]
        return measure_sensitivity(
            list(tensor_groups(self._plan)),
            nodes_with_constants(self._plan),
            load,
            NoiseMeter(self._feeds, reference.run, outputs),
            self._progress,
            known=self._state.noise,
            keep=self._state.keep_noise,
        )

    def _find_constants(self, first: Report) -> tuple[float, ...]:
        """The constant of each output in dB: measured minus predicted without float tensors."""
        whole = self.outline(())
        predicted = decibels(self.sensitivity.noise(whole.groups, whole.nodes))
        measured = {out.name: out.sqnr for out in first.outputs}
        found = []
        for name, value in zip(self.sensitivity.outputs, predicted, strict=True):
            real = measured.get(name)
            usable = real is not None and math.isfinite(real) and math.isfinite(value)
            found.append(real - value if real is not None and usable else 0.0)
        return tuple(found)

    def _find_costs(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """What each node costs more in float, and the seconds of both models where they were profiled."""
        if self._options.minimize == "layers" or not TARGETS[self._plan.target].timed:
            return dict.fromkeys(sorted(self.outline(()).layers), 1.0), {}
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
            "extra": extra_seconds(self._plan, source.whole, floats, integers),
            "total": {"float": total_seconds(floats), "integer": total_seconds(integers)},
        }
