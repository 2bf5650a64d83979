"""Where the error is: every activation that both models have, and the layers that made it.

``match_tensors`` pairs the values, ``find_weight_faults`` looks at weights and biases and says what equalization
did, ``run_tensors`` measures accumulated and local errors, and the ``*_faults`` modules name what rounding does
not explain. Suspects are ordered by kind of proof, then by severity: what weights, biases and parameters prove
comes before what ranges show, and that before what only running shows, because a fault in the parameters shows
there, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.core.tensor_sums import RangeSums
from quantcli.evaluate.activation_faults import (
    find_bias_faults,
    find_codec_faults,
    find_range_faults,
    wasted,
)
from quantcli.evaluate.channel_scales import Scales, plain
from quantcli.evaluate.codecs import Codecs
from quantcli.evaluate.layer_pairs import layer_pairs
from quantcli.evaluate.local_faults import find_local_faults
from quantcli.evaluate.outputs import SampleSource
from quantcli.evaluate.tensor_matching import Match, Matching, match_tensors
from quantcli.evaluate.tensor_run import Measured, Models, TensorRun, run_tensors, widen_ranges
from quantcli.evaluate.weight_faults import WeightFindings, find_weight_faults
from quantcli.graph.view import GraphView
from quantcli.progress import Progress
from quantcli.report.schema import Histogram, Suspect, TensorComparison, TensorError

SAMPLES = 32
"""Samples that are looked at where nothing else is said."""

MAX_MEMORY = 2**31
"""Bytes that the values of a sample may take at a time where nothing else is said."""

DIVERGED = 20.0
"""Accumulated SQNR in dB below which a tensor has diverged: a tenth of its size."""

_BINS = 64
_FLOATS_EQUAL = 0.03
"""Equalization below this is none: rounded weights do not tell better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorOptions:
    """How to look at tensors.

    Attributes:
        samples: At most so many samples, evenly spaced.
        max_memory: Bytes that the values of one sample may take at a time.
    """

    samples: int = SAMPLES
    max_memory: int = MAX_MEMORY


def compare_tensors(
    models: Models,
    dataset: SampleSource | None,
    options: TensorOptions,
    *,
    threads: int,
    progress: Progress,
) -> TensorComparison:
    """Compare the activations of two models; without samples, only what weights and parameters prove.

    Args:
        models: The original and the quantized model.
        dataset: Complete feeds; None for none.
        options: How much to look at.
        threads: Intra-op threads.
        progress: Told of each sample.

    Raises:
        RuntimeFailure: R101 or R102, a model does not load or run with its values exposed.
        ModelError: M106, a model is too large for one message.
    """
    matching = match_tensors(models.view, models.quantized_view)
    weights = find_weight_faults(models.view, layer_pairs(models.view, models.quantized_view))
    codecs, accused = Codecs(models.quantized_view), {suspect.node for suspect in weights.suspects}
    proven = [
        *weights.suspects,
        *find_codec_faults(models.view, models.quantized_view, codecs, matching.by_name),
        *find_bias_faults(models.quantized_view, codecs, matching.by_name, accused),
    ]
    run = TensorRun(samples=0, measured=(), notes=())
    if dataset is not None:
        measured = [_prepared(match, models.view, weights) for match in matching.matches]
        run = run_tensors(
            models,
            measured,
            dataset,
            samples=options.samples,
            max_memory=options.max_memory,
            threads=threads,
            progress=progress,
        )
        again = wasted(run.measured)
        if again:
            widen_ranges(models, again, dataset, threads=threads, progress=progress)
    layers = {layer.output: layer for layer in weights.layers}
    made_up = dataset is not None and dataset.synthetic  # samples that no range was chosen for
    ranges = [] if made_up else list(find_range_faults(run.measured))
    suspects = _ordered(proven, ranges, list(find_local_faults(run.measured, layers)))
    tensors = tuple(_error(item) for item in run.measured if item.total is not None)
    return TensorComparison(
        samples=run.samples,
        activations=matching.activations,
        matched=sum(match.position >= 0 for match in matching.matches),
        notes=_notes(matching, run),
        tensors=tensors,
        first_divergence=next((t.name for t in tensors if t.sqnr is not None and t.sqnr < DIVERGED), None),
        suspects=suspects,
    )


def _ordered(*kinds: Sequence[Suspect]) -> tuple[Suspect, ...]:
    """Suspects of each kind by severity, a node once."""
    found: dict[str, Suspect] = {}
    for kind in kinds:
        for suspect in sorted(kind, key=lambda suspect: -suspect.severity):
            found.setdefault(suspect.node, suspect)
    return tuple(found.values())


def _prepared(match: Match, view: GraphView, weights: WeightFindings) -> Measured:
    rank = view.tensors[match.name].rank
    axis = None if rank is None or rank < 2 else 1 if rank >= 4 or match.op == "Conv" else rank - 1
    scales = np.ones(1) if match.factor else _settled(weights.scales.of(match.name))
    return Measured(match=match, axis=axis, scales=scales)


def _settled(scales: Scales) -> np.ndarray:
    """The scales, with 1 for what is not known and for what rounding alone makes."""
    if scales is None or plain(scales):
        return np.ones(1)
    known = np.isfinite(scales) & (np.abs(scales - 1) > _FLOATS_EQUAL)
    return np.where(known, scales, 1.0)


def _notes(matching: Matching, run: TensorRun) -> tuple[str, ...]:
    lost = [f"{count} activations {why}" for why, count in sorted(matching.lost.items())]
    differing = sum(bool(item.mismatches) for item in run.measured)
    if differing:
        lost.append(f"{differing} tensors have other shapes in the quantized model and were left out")
    return (*lost, *run.notes)


def _error(item: Measured) -> TensorError:
    """What the report keeps of a value."""
    total, local, sums, codec = item.total, item.local, item.range, item.match.codec
    assert total is not None
    low, high = _extremes(sums)
    return TensorError(
        name=item.match.name,
        quantized_name=item.match.read,
        node=item.match.node,
        op=item.match.op,
        position=max(item.match.position, 0),
        elements=total.count * total.aa.size,
        sqnr=total.sqnr,
        local_sqnr=None if local is None else local.sqnr,
        cosine=total.cosine / total.samples if total.samples else None,
        max_abs=total.largest,
        bias=_bias(item),
        step_rmse=None
        if codec is None or not sums.count
        else math.sqrt(sums.error_energy / sums.count) / codec.scale,
        dtype=None if codec is None else codec.dtype,
        scale=None if codec is None else codec.scale,
        zero_point=None if codec is None else codec.zero_point,
        low=None if codec is None else codec.low,
        high=None if codec is None else codec.high,
        observed_low=low,
        observed_high=high,
        clipped=None if codec is None or not sums.count else sums.clipped / sums.count,
        range_used=None
        if codec is None or low is None or high is None
        else max(0.0, min(max(high, 0.0), codec.high) - max(min(low, 0.0), codec.low)) / (codec.high - codec.low),
        histogram=_histogram(sums),
    )


def _extremes(sums: RangeSums) -> tuple[float | None, float | None]:
    return (min(sums.lows), max(sums.highs)) if sums.lows else (None, None)


def _bias(item: Measured) -> float | None:
    """Mean of the local error in steps, or in standard deviations (here the RMS) of the value."""
    local, codec = item.local, item.match.codec
    if local is None or not local.count:
        return None
    elements = local.count * local.e.size
    unit = codec.scale if codec is not None else math.sqrt(float(local.aa.sum()) / elements)
    return float(local.e.sum()) / elements / unit if unit > 0 else None


def _histogram(sums: RangeSums) -> Histogram | None:
    """At most ``_BINS`` bins of equal width."""
    found = sums.histogram
    while found.counts.size > _BINS:
        found = found.coarsened(found.exponent + 1)
    if not found.counts.size:
        return None
    edges = found.edges
    return Histogram(low=float(edges[0]), high=float(edges[-1]), counts=tuple(_ints(found.counts)))


def _ints(counts: Iterable[int]) -> list[int]:
    return [int(count) for count in counts]
