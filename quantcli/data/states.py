"""Streaming models: the states that a run gives are what the next run takes.

``--state OUT=IN`` says that output OUT of step n is input IN of step n + 1. Samples are steps of one sequence, in
order; with ``--sequence-length N`` a new sequence starts after every N of them. A sequence starts from what its
first sample holds for IN, and from zeros where the data hold nothing for it.

A model that is calibrated on states that nobody computed (zeros, or those of another sequence) gets ranges for
values that it never sees. Fed back, the states are those that it sees at work.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from quantcli.data.base import Dataset, InputSpec, Sample
from quantcli.errors import DataError, UsageError

Run = Callable[[Sample], Mapping[str, np.ndarray]]
"""Runs the model once: a complete feed to all outputs by name."""


class OutputLike(Protocol):
    """What must be known of an output."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def dtype(self) -> str:
        """Its type, by numpy's name."""

    @property
    def shape(self) -> tuple[int | str | None, ...]:
        """int, symbolic name or None per axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLinks:
    """Which outputs are fed back.

    Attributes:
        pairs: (output, input) of every state.
        length: Samples of a sequence; None for one sequence.
    """

    pairs: tuple[tuple[str, str], ...]
    length: int | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Inputs that are states."""
        return tuple(name for _, name in self.pairs)

    def describe(self) -> str:
        """One sentence for notes of reports."""
        fed = ", ".join(f"{out} → {name}" for out, name in self.pairs)
        parts = "one sequence" if self.length is None else f"sequences of {self.length} samples"
        return f"states are fed back ({fed}; {parts}); every model goes on from its own"


def parse_links(texts: Sequence[str], length: int | None) -> StateLinks | None:
    """The links of ``OUT=IN`` texts; None for none.

    Raises:
        UsageError: U109, a text does not parse, or an input has two states.
    """
    pairs = []
    for text in texts:
        output, equals, name = text.partition("=")
        if not (output and equals and name):
            raise UsageError("U109", f"'{text}' is no pair of a state", hint="write --state OUTPUT=INPUT")
        pairs.append((output, name))
    inputs = [name for _, name in pairs]
    twice = next((name for name in inputs if inputs.count(name) > 1), None)
    if twice is not None:
        raise UsageError("U109", f"input '{twice}' gets two states", hint="keep one --state for it")
    return StateLinks(pairs=tuple(pairs), length=length) if pairs else None


def check_links(links: StateLinks, inputs: Sequence[InputSpec], outputs: Sequence[OutputLike]) -> None:
    """Refuse pairs that the model cannot have.

    Raises:
        UsageError: U109, a name does not exist, or types or shapes of a pair differ.
    """
    ins, outs = {spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs}
    for output, name in links.pairs:
        for kind, wanted, known in (("output", output, outs), ("input", name, ins)):
            if wanted not in known:
                near = difflib.get_close_matches(wanted, known, n=1)
                raise UsageError(
                    "U109",
                    f"--state names '{wanted}', which is no {kind} of the model",
                    hint=f"did you mean '{near[0]}'?" if near else f"its {kind}s: {', '.join(known)}",
                )
        given, taken = outs[output], ins[name]
        if given.dtype != taken.dtype:
            raise UsageError(
                "U109",
                f"--state {output}={name}: the output is {given.dtype}, the input takes {taken.dtype}",
                hint="a state goes back as it is; choose the output that belongs to the input",
            )
        if not _may_fit(given.shape, taken.shape):
            raise UsageError(
                "U109",
                f"--state {output}={name}: the output has shape {list(given.shape)}, the input takes {taken}",
                hint="a state goes back as it is; choose the output that belongs to the input",
            )


def _may_fit(given: Sequence[int | str | None], taken: Sequence[int | str | None] | None) -> bool:
    if taken is None:
        return True
    if len(given) != len(taken):
        return not given  # runtimes give () for a rank that they do not know
    known = [(a, b) for a, b in zip(given, taken, strict=True) if isinstance(a, int) and isinstance(b, int)]
    return all(a == b for a, b in known)


class StateFeed:
    """The states of one model on its way through the samples."""

    def __init__(self, links: StateLinks, start: Mapping[str, np.ndarray]) -> None:
        """Begin before the first sample; ``start`` holds states that a sequence starts from by default."""
        self._links = links
        self._start = start
        self._held: dict[str, np.ndarray] = {}
        self._step = 0

    def feed(self, sample: Sample) -> dict[str, np.ndarray]:
        """The sample with the states that the model is in."""
        if self._links.length is not None and self._step % self._links.length == 0:
            self._held = {}
        return {**self._start, **sample, **self._held}

    def take(self, outputs: Mapping[str, np.ndarray]) -> None:
        """Go one step on.

        Raises:
            DataError: D113, a state changes its shape, so the model cannot take it.
        """
        self._step += 1
        for output, name in self._links.pairs:
            state = np.asarray(outputs[output])
            before = self._held.get(name)
            if before is not None and before.shape != state.shape:
                raise DataError(
                    "D113",
                    f"state '{output}' has shape {list(state.shape)} after step {self._step}, and had "
                    f"{list(before.shape)} before",
                    hint="states of one shape can be fed back; --sequence-length says where sequences end",
                )
            self._held[name] = state


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedDataset:
    """A dataset whose states are those that ``run`` computes on the way.

    Attributes:
        dataset: Steps; states may be lacking.
        links: Which outputs are fed back.
        run: The model whose states they are.
        start: States that sequences start from, where the steps hold none.
        order: Names of the inputs in the order of the model.
    """

    dataset: Dataset
    links: StateLinks
    run: Run
    start: Mapping[str, np.ndarray]
    order: tuple[str, ...]

    @property
    def name(self) -> str:
        """Printable name, without directories."""
        return self.dataset.name

    @property
    def length(self) -> int | None:
        """Number of steps, None where only iterating tells."""
        return self.dataset.length

    @property
    def synthetic(self) -> bool:
        """Whether any value is made up."""
        return self.dataset.synthetic

    @property
    def executes_code(self) -> bool:
        """Whether reading runs code of the user."""
        return self.dataset.executes_code

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        zeros = (
            f"state '{name}' starts as {value.size} zeros of shape {list(value.shape)}: the data hold none"
            for name, value in self.start.items()
        )
        return (*self.dataset.notes, self.links.describe(), *zeros)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Sample]:
        states = StateFeed(self.links, self.start)
        for sample in self.dataset:
            feed = states.feed(sample)
            yield {name: feed[name] for name in self.order}
            states.take(self.run(feed))


def zero_states(
    links: StateLinks, inputs: Sequence[InputSpec], given: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Zeros for the states that the data do not give; an open dimension is 1 where no shape is said.

    Raises:
        UsageError: U109, the rank of such a state is not known.
    """
    found = {}
    for spec in inputs:
        if spec.name not in links.inputs or spec.name in given:
            continue
        shape = shapes.get(spec.name, spec.shape)
        if shape is None:
            raise UsageError(
                "U109",
                f"state '{spec.name}' has no known shape, and the data hold none to start from",
                hint=f"add --shape {spec.name}=1x64, or data for it",
            )
        found[spec.name] = np.zeros([dim if isinstance(dim, int) else 1 for dim in shape], np.dtype(spec.dtype))
    return found
