"""Analyze: which layer makes the error, why, and what leaving it in float would cost.

One conversion, one walk forwards and backwards per sample (``graph.noise_probe``), and a few real runs that check
the predictions: the number of runs does not grow with the number of layers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quantcli.algorithms.noise_parts import TENSOR
from quantcli.algorithms.part_noise import PartNoise, decibels
from quantcli.config.recipe_file import recipe_text
from quantcli.errors import UsageError
from quantcli.evaluate.compare import tool_versions
from quantcli.evaluate.size import model_facts
from quantcli.graph.model_io import save_model
from quantcli.graph.read_view import read_whole_view
from quantcli.ops.targets import TARGETS
from quantcli.pipeline.analyze_types import AnalyzeOptions, AnalyzeRequest
from quantcli.pipeline.carry_out import Made
from quantcli.pipeline.diagnosis import Doctor
from quantcli.pipeline.evaluation import Evaluation, open_evaluation
from quantcli.pipeline.layer_gains import LayerGains, NodeGain
from quantcli.pipeline.left_in_float import float_bytes, model_without
from quantcli.pipeline.node_costs import extra_seconds
from quantcli.pipeline.noise_runs import NoiseRuns
from quantcli.pipeline.reporting import check_analysis_forms, write_analysis
from quantcli.pipeline.source import load_for_recipe, runnable
from quantcli.pipeline.tune import open_bench, recipe_values
from quantcli.pipeline.tune_state import TuneState
from quantcli.pipeline.tuning_bench import TuningBench
from quantcli.pipeline.types import ConvertRequest
from quantcli.pipeline.writing import check_outputs, data_files, write_text
from quantcli.progress import Progress
from quantcli.quantize.body_plans import layers_in_bodies
from quantcli.quantize.recipe import node_selector
from quantcli.quantize.widths import possible_recipe
from quantcli.report.analysis import Analysis, ExcludeStep, LayerSensitivity
from quantcli.report.schema import DataFacts
from quantcli.runtime.profile import profile_nodes
from quantcli.runtime.session import SessionSettings

MEASURED_STEPS = 3
"""Lines of the exclude block that are checked by real runs: the first, the last, and one between."""

FAR_DB = 1.5
"""Difference between the sum of the shares and the measured SQNR from which on the first order does not hold."""


ALIKE = 0.5
"""Rank correlation of two halves of the samples below which an order is mostly chance."""


def analyze(request: AnalyzeRequest, progress: Progress) -> Analysis:
    """Analyze, and write the reports and the recipe that were asked for.

    Raises:
        UsageError: U101, there are no samples; U103, there is no form for a report.
        ConfigError, ModelError, DataError: As ``convert``.
        OutputError: A file exists (O101), or cannot be written.
    """
    asked = request.conversion
    if not asked.data.specs:
        raise UsageError("U101", "there are no samples to analyze on", hint="add --data calib.npz")
    check_analysis_forms(request.reports)
    inputs = (asked.model, asked.calibration, *data_files(asked.data, asked.eval_data))
    check_outputs((request.output, *request.reports), request.overwrite, inputs=inputs)
    source = load_for_recipe(asked.model, asked.recipe, opset=asked.opset, threads=asked.run.threads)
    asked = replace(asked, recipe=possible_recipe(asked.recipe, source.view.opset))
    evaluation = open_evaluation(source, asked.eval_data if asked.eval_data.specs else asked.data, asked.run)
    bench = open_bench(asked, source, TuneState(None, ""), progress)
    made = bench.first
    found = _Analysis(made, bench, evaluation, request.options, progress).result()
    notes = [*made.bench.statistics.notes, *found.notes]
    if not asked.eval_data.specs:
        notes.append(
            "errors were measured on the calibration samples, which flatters; give others with --eval-data"
        )
    result = replace(found, command=request.command or None, notes=tuple(notes))
    write_analysis(result, request.reports, overwrite=request.overwrite)
    if request.output is not None:
        nodes = [step.selector for step in result.exclude]
        recipe = replace(asked.recipe, exclude=(*asked.recipe.exclude, *nodes))
        text = recipe_text(recipe_values(replace(asked, recipe=recipe)))
        write_text(request.output, text, overwrite=request.overwrite)
    return result


class _Analysis:
    """One analysis of one conversion."""

    def __init__(
        self, made: Made, bench: TuningBench, evaluation: Evaluation, options: AnalyzeOptions, progress: Progress
    ) -> None:
        self._made, self._evaluation, self._options, self._progress = made, evaluation, options, progress
        self._request: ConvertRequest = bench.request
        samples = evaluation.some(options.probe_samples)
        self._runs = NoiseRuns(made, samples, evaluation.threads, progress)
        self._noise: PartNoise = self._runs.measure()
        named = {node.name for node in bench.source.view.nodes}
        self._gains = LayerGains(made, self._noise, self._request, named, progress)
        self._doctor = Doctor(made, self._noise, self._request)
        self._costs = self._times() if options.latency else {}

    def result(self) -> Analysis:
        """Everything but what the command line knows."""
        noise, runs = self._noise, self._runs
        steps, differences = self._block()
        predicted = decibels(noise.total())
        sqnr = decibels(noise.left(()))
        dataset, path = self._evaluation.dataset, self._made.bench.source.path
        return Analysis(
            tools=tool_versions(),
            model=model_facts(path, read_whole_view(path)),
            data=DataFacts(
                name=dataset.name,
                samples=len(runs.outputs.samples),
                synthetic=dataset.synthetic,
                notes=tuple(dataset.notes),
            ),
            threads=self._evaluation.threads,
            outputs=(noise.output,),
            sqnr=sqnr,
            sqnr_predicted=predicted,
            checks=max(differences, default=None),
            layers=tuple(self._layer(item) for item in self._gains.ranked),
            exclude=steps,
            notes=self._notes(),
        )

    # Layers -----------------------------------------------------------------------------------------

    def _layer(self, item: NodeGain) -> LayerSensitivity:
        noise, view = self._noise, self._made.bench.view
        tensors = [part for part in item.parts if part.startswith(TENSOR)]
        weights = [part for part in item.parts if not part.startswith(TENSOR)]
        found = self._doctor.diagnose(item.node, item.parts, worth=item.gain > 0)
        removed, signal, error = noise.removed(item.parts), noise.signal, noise.error
        order = {node.name: position for position, node in enumerate(view.nodes)}
        cost = self._cost((item.node,))
        return LayerSensitivity(
            node=item.node,
            op=view.node_by_name[item.node].op,
            position=order[item.node],
            noise=removed / signal if signal > 0 else 0.0,
            share=removed / error if error > 0 else 0.0,
            gain=item.gain,
            sqnr=decibels(noise.alone(item.parts) / signal) if signal > 0 else None,
            activation_noise=noise.alone(tensors) / signal if signal > 0 else 0.0,
            weight_noise=noise.alone(weights) / signal if signal > 0 else 0.0,
            cause=found.cause,
            evidence=found.evidence,
            remedy=found.remedy,
            cost_ms=cost,
            cost_bytes=float_bytes(self._made, self._lost_layers((item.node,))),
        )

    def _lost_layers(self, nodes: Sequence[str]) -> tuple[str, ...]:
        """Layers that become float with ``nodes``."""
        kept = {layer.node for layer in self._gains.plan(nodes).layers}
        return tuple(layer.node for layer in self._made.plan.layers if layer.node not in kept)

    # Exclude block ----------------------------------------------------------------------------------

    def _block(self) -> tuple[tuple[ExcludeStep, ...], list[float]]:
        """Lines of the block, and by how many dB real runs differ from the predictions."""
        nodes = self._gains.block(self._options.target_sqnr)
        count = len(nodes)
        measured = {1, count, (count + 1) // 2} if count else set()
        steps, differences = [], []
        self._progress.start("check with real runs", len(measured))
        for number in range(1, count + 1):
            chosen, before = nodes[:number], nodes[: number - 1]
            predicted = self._gains.sqnr(chosen)
            real = None
            if number in measured:
                real = decibels(self._runs.noise(model_without(self._made, self._request, chosen)))
                differences.append(abs(real - predicted))
                self._progress.advance()
            cost, base = self._cost(chosen), self._cost(before)
            lost = set(self._lost_layers(chosen)) - set(self._lost_layers(before))
            steps.append(
                ExcludeStep(
                    selector=node_selector(nodes[number - 1]),
                    predicted=predicted,
                    measured=real,
                    cost_ms=None if cost is None or base is None else cost - base,
                    cost_bytes=float_bytes(self._made, sorted(lost)),
                )
            )
        self._progress.finish()
        return tuple(steps), differences

    # Price ------------------------------------------------------------------------------------------

    def _times(self) -> dict[str, float]:
        """What every kernel costs more in float, in seconds; nothing for targets that are not here."""
        made = self._made
        if not TARGETS[made.plan.target].timed:
            return {}
        settings = SessionSettings(threads=self._evaluation.threads)
        feeds = self._runs.outputs.samples[:4]
        self._progress.start("time nodes", 2)
        with runnable(made.bench.source.prepared) as loadable:
            floats = profile_nodes(loadable, feeds, settings)
        self._progress.advance()
        with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
            path = Path(folder) / "model.onnx"
            save_model(made.model, path)
            integers = profile_nodes(path, feeds, settings)
        self._progress.advance()
        self._progress.finish()
        return extra_seconds(made.plan, made.bench.source.whole, floats, integers)

    def _cost(self, nodes: Sequence[str]) -> float | None:
        """Milliseconds that a run takes longer with ``nodes`` in float."""
        if not self._costs:
            return None
        kept = {node.name for node in self._gains.plan(nodes).nodes if node.action != "float"}
        return 1e3 * sum(cost for node, cost in sorted(self._costs.items()) if node not in kept)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if abs(decibels(self._noise.total()) - decibels(self._noise.left(()))) > FAR_DB:
            notes.append(
                "the shares do not add up to the error that was measured: it is too large, or not linear enough, "
                "for predictions; believe the measured figures only"
            )
        agreement = self._noise.agreement([item.parts for item in self._gains.ranked])
        if agreement is not None and agreement < ALIKE:
            notes.append(
                f"the layers are much alike: two halves of the samples rank them differently (rank correlation "
                f"{agreement:.2f}); believe the first few lines only, or give more samples (--probe-samples)"
            )
        if inside := len(layers_in_bodies(self._made.plan)):
            notes.append(
                f"layers in bodies of If, Loop and Scan are not ranked: {inside}; 'quantcli tune' tries them"
            )
        if self._runs.skipped:
            notes.append(f"{self._runs.skipped} samples of other shapes were left out")
        if self._runs.blocked:
            notes.append(
                f"{len(self._runs.blocked)} of {len(self._noise.keys)} parts were run one by one, on a few "
                "samples: an operator behind them has no rule for gradients"
            )
        if len(self._runs.names) > 1:
            others = ", ".join(f"'{name}'" for name in self._runs.names if name != self._noise.output)
            notes.append(f"ranked by the worst output, '{self._noise.output}'; the others are {others}")
        return tuple(notes)
