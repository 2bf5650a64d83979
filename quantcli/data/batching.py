"""Several samples in one call, where the model and the shapes allow it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from quantcli.data.base import InputSpec, Sample


def can_batch(inputs: Sequence[InputSpec]) -> bool:
    """Whether samples can be joined along the first axis of every input.

    True when every input has a first axis that is dynamic, under one symbol where they are named. It is the shape
    that says so: whether the model treats the rows independently only running it can tell.
    """
    symbols = set()
    for spec in inputs:
        if not spec.shape or isinstance(spec.shape[0], int):
            return False
        if spec.shape[0] is not None:
            symbols.add(spec.shape[0])
    return bool(inputs) and len(symbols) <= 1


def batches(samples: Iterable[Sample], size: int, *, batchable: bool) -> Iterator[Sample]:
    """Join consecutive samples along axis 0.

    Args:
        samples: Complete feeds.
        size: Samples in a batch, at least 1; fewer where shapes change and at the end.
        batchable: What ``can_batch`` says; False hands every sample on as it is.

    Yields:
        Feeds whose arrays are the concatenation of up to ``size`` samples that agree in all axes but the first
        and in type. The order of the samples is kept.

    Raises:
        ValueError: ``size`` is below 1.
    """
    if size < 1:
        raise ValueError("a batch holds at least one sample")
    if size == 1 or not batchable:
        yield from samples
        return
    held: list[Sample] = []
    for sample in samples:
        if held and (len(held) == size or not _alike(held[0], sample)):
            yield _joined(held)
            held = []
        held.append(sample)
    if held:
        yield _joined(held)


def _alike(first: Sample, second: Sample) -> bool:
    return first.keys() == second.keys() and all(
        array.ndim > 0 and array.shape[1:] == second[name].shape[1:] and array.dtype == second[name].dtype
        for name, array in first.items()
    )


def _joined(samples: list[Sample]) -> Sample:
    if len(samples) == 1:
        return samples[0]
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
