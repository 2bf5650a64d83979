"""A feed that a converted model is tried on before it is written, where no calibration is needed.

The first sample of the user's data, if there are any. Otherwise made-up inputs (``data.synthetic``) on which the
float model runs: inputs as they are declared, a batch of 1, and one length for all other dimensions that are not
fixed, tried from ``LENGTHS`` in this order. Where the float model takes none of them, the result can only be
loaded, which a note tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from quantcli.data.base import InputSpec, Sample
from quantcli.data.spec import parse_data_spec
from quantcli.data.synthetic import open_random, symbol_values
from quantcli.errors import RuntimeFailure
from quantcli.pipeline.large import Runner, open_runner
from quantcli.pipeline.samples import open_samples
from quantcli.pipeline.source import FloatModel
from quantcli.pipeline.types import ConvertRequest
from quantcli.runtime.session import SessionSettings

LENGTHS = (16, 1, 64, 224)
"""Lengths of dimensions that are not fixed: tokens or frames, single steps, the sizes of images."""

_NOT_RUN = (
    "the result was loaded, but not run: the float model takes no made-up input; give it a sample with --data"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFeed:
    """What a result is tried on.

    Attributes:
        sample: A complete feed, on which the float model runs; None where none was found.
        notes: What the user should know.
    """

    sample: Sample | None = None
    notes: tuple[str, ...] = ()


def trial_feed(source: FloatModel, request: ConvertRequest) -> TrialFeed:
    """The feed that the result of ``request`` is tried on.

    Raises:
        UsageError, DataError: The user's data do not fit.
    """
    for options in (request.data, request.eval_data):
        if options.specs:
            first = next(iter(open_samples(replace(options, samples=1), source.inputs, source.path)), None)
            if first is not None:
                return TrialFeed(sample=first)
    runner: Runner | None = None
    for sample in _made_up(source, request):
        runner = runner or open_runner(source.path, SessionSettings(threads=request.run.threads))
        if _runs(runner, sample):
            return TrialFeed(sample=sample)
    return TrialFeed(notes=(_NOT_RUN,))


def _made_up(source: FloatModel, request: ConvertRequest) -> Iterator[Sample]:
    """Made-up feeds, the likeliest first; none where an input takes no numbers or has no known rank."""
    spec = parse_data_spec("random:1")
    known = symbol_values(source.inputs, request.data.shapes)
    for length in LENGTHS:
        stated = tuple(
            _fixed(entry, request.data.shapes.get(entry.name), known, length) for entry in source.inputs
        )
        found = open_random(spec, stated, known, seed=0)
        if found.source is not None:
            yield from found.source.read(None)
        if stated == source.inputs:
            return  # no other length makes a difference


def _fixed(entry: InputSpec, shape: tuple[int, ...] | None, known: dict[str, int], length: int) -> InputSpec:
    """``entry`` with every dimension a number: as the user said, as its symbol is bound, or by its place."""
    if shape is None and entry.shape is not None:
        named = (known.get(dim) if isinstance(dim, str) else dim for dim in entry.shape)
        shape = tuple(dim if dim is not None else 1 if axis == 0 else length for axis, dim in enumerate(named))
    return replace(entry, shape=shape)


def _runs(runner: Runner, sample: Sample) -> bool:
    try:
        runner.run(sample)
    except RuntimeFailure:
        return False
    return True
