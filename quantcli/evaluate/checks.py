"""What the runtime does with a quantized model, and whose error it is: the checks of ``compare`` in one place.

Without samples: which layers can saturate on CPUs without VNNI. With samples, the first few of them: integer
kernels, the difference that the runtime's optimizations make, the shares of weights and activations in the error,
and what a CPU without VNNI would give. On request: peak memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from quantcli.errors import ModelError, RuntimeFailure
from quantcli.evaluate.attribution import attribute_error, plain_settings
from quantcli.evaluate.avx2_emulation import emulate_avx2
from quantcli.evaluate.fusion import (
    first_difference,
    float_weight_layers,
    furthest_sample,
    fusion_differences,
    fusion_notes,
)
from quantcli.evaluate.integer_layers import IntegerLayer, integer_layers
from quantcli.evaluate.kernel_facts import kernel_facts
from quantcli.evaluate.matching import match_outputs
from quantcli.evaluate.metric_table import Needs
from quantcli.evaluate.outputs import feed_of
from quantcli.evaluate.saturation import prove_saturation
from quantcli.graph.read_view import load_named
from quantcli.graph.view import GraphView
from quantcli.progress import Progress
from quantcli.report.schema import FusionDifference, Memory, Report
from quantcli.runtime.peak_memory import peak_memory
from quantcli.runtime.session import Session, SessionSettings

MEMORY_FLOOR_BYTES = 2**20
"""What a model takes below this is not told from what a process takes anyway, which varies by as much."""

SMALL_MEMORY_BYTES = 16 * 2**20
"""A session takes some mebibytes whatever its model; below this, that is most of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """Which checks, and how many samples they see.

    Attributes:
        samples: First samples that the shares of the error and the fusions are measured on; 0 leaves both out.
        emulated: First samples that a CPU without VNNI is emulated on; 0 leaves it out.
        kernels: Whether to look at the kernels.
        memory: Whether to measure the peak memory of both models.
    """

    samples: int = 8
    emulated: int = 8
    kernels: bool = True
    memory: bool = False

    @property
    def gives(self) -> tuple[Needs, ...]:
        """What gates may ask for with these checks."""
        wanted = ((Needs.CHECKS, self.samples > 0), (Needs.MEMORY, self.memory))
        return tuple(need for need, given in wanted if given)


def run_checks(
    report: Report,
    paths: tuple[Path, Path],
    quantized: GraphView,
    samples: Iterable[Mapping[str, np.ndarray]] | None,
    options: CheckOptions,
    threads: int,
    progress: Progress,
) -> Report:
    """The report with the results of the checks.

    Args:
        report: What is known so far.
        paths: Original and quantized model.
        quantized: Graph of the quantized model.
        samples: Complete feeds; None where there are none.
        options: Which checks.
        threads: Intra-op threads.
        progress: Told of each check.

    Raises:
        RuntimeFailure: R101 or R102, a model does not load or run; R103, memory could not be measured.
    """
    layers = integer_layers(quantized)
    report = replace(report, saturation=prove_saturation(layers))
    if samples is None:
        return report
    progress.start("checks", None)
    if not _is_quantized(report):  # a conversion to float16, say: nothing to separate, nothing to fuse
        options = replace(options, samples=0, emulated=0, kernels=False)
    if options.kernels:
        report = replace(report, kernels=kernel_facts(paths[1], quantized, threads=threads))
        progress.advance()
    feeds: Sequence[Mapping[str, np.ndarray]] = ()
    wanted = max(options.samples, options.emulated, int(options.memory))
    if wanted:
        original = Session(paths[0], SessionSettings(threads=threads))
        feeds = [feed_of(original, feed, index) for index, feed in enumerate(islice(iter(samples), wanted))]
        try:
            report = _with_runs(report, paths, quantized, layers, original, feeds, options, threads, progress)
        except (ModelError, RuntimeFailure) as error:  # the comparison itself went well; this must not undo it
            note = f"the checks of fusions, shares of the error and CPUs without VNNI broke off: {error.message}"
            report = replace(report, notes=(*report.notes, note))
    if options.memory:
        memory, notes = _memory(paths, feeds[:1], threads)
        report = replace(report, memory=memory, notes=report.notes + notes)
        progress.advance()
    progress.finish()
    return report


def _is_quantized(report: Report) -> bool:
    """Whether anything in the quantized model is quantized."""
    if report.structure is None:
        return True
    facts = report.structure.quantized
    return bool(
        facts.quantize_nodes + facts.dequantize_nodes + facts.compute_quantized + facts.compute_weight_only
    )


def _with_runs(
    report: Report,
    paths: tuple[Path, Path],
    view: GraphView,
    layers: Sequence[IntegerLayer],
    original: Session,
    feeds: Sequence[Mapping[str, np.ndarray]],
    options: CheckOptions,
    threads: int,
    progress: Progress,
) -> Report:
    """The checks that need both models' outputs."""
    plain_session = Session(paths[1], plain_settings(threads))
    pairs = match_outputs(original.outputs, plain_session.outputs).pairs
    names, partners = [name for name, _ in pairs], [partner for _, partner in pairs]
    run_on = feeds[: max(options.samples, options.emulated)]
    reference = [original.run(feed, names) for feed in run_on]
    plain = [plain_session.run(feed, partners) for feed in run_on]
    if options.samples:
        some = slice(0, options.samples)
        fused = Session(paths[1], SessionSettings(threads=threads))
        optimized = [fused.run(feed, partners) for feed in run_on[some]]
        fusion = fusion_differences(view, pairs, reference[some], optimized, plain[some])
        notes = _fusion_notes(
            fusion, view, paths[1], run_on[furthest_sample(pairs, optimized, plain[some])], threads
        )
        progress.advance()
        shares = attribute_error(*paths, run_on[some], pairs, reference[some], plain[some], threads=threads)
        progress.advance()
        report = replace(
            report,
            fusion=fusion,
            attribution=shares.outputs,
            notes=report.notes + notes + shares.notes,
        )
    if options.emulated and report.saturation is not None:
        few = slice(0, options.emulated)
        saturation, notes = emulate_avx2(
            paths[1], layers, report.saturation, run_on[few], pairs, reference[few], plain[few], threads=threads
        )
        report = replace(report, saturation=saturation, notes=report.notes + notes)
        progress.advance()
    return report


def _fusion_notes(
    differences: Sequence[FusionDifference],
    view: GraphView,
    quantized: Path,
    feed: Mapping[str, np.ndarray],
    threads: int,
) -> tuple[str, ...]:
    """Why the runtime's optimizations change the result, where they change it by more than rounding."""
    if not any(item.flagged for item in differences):
        return ()
    unfused_rounding = float_weight_layers(view)
    first = None if unfused_rounding else first_difference(load_named(quantized), feed, threads)
    return fusion_notes(differences, unfused_rounding, first)


def _memory(
    paths: tuple[Path, Path], feeds: Sequence[Mapping[str, np.ndarray]], threads: int
) -> tuple[Memory, tuple[str, ...]]:
    """Peaks, and a remark where they are too small to be compared."""
    found = peak_memory(paths, feeds, threads=threads)
    own = [max(peak - found.baseline, MEMORY_FLOOR_BYTES) for peak in found.peaks]
    small = own[0] < SMALL_MEMORY_BYTES
    memory = Memory(
        baseline_bytes=found.baseline,
        original_bytes=found.peaks[0],
        quantized_bytes=found.peaks[1],
        ratio=own[1] / own[0],
    )
    return memory, (
        ("the original takes hardly more memory than any session, so the ratio of peaks says little",) * small
    )
