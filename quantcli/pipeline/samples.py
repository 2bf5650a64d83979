"""Samples for a model, from the options of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from quantcli.data.base import Dataset, InputSpec, Sample
from quantcli.data.dataset import open_dataset
from quantcli.data.fingerprint import Fingerprint
from quantcli.data.options import parse_image_options
from quantcli.data.states import StateLinks, StreamedDataset, check_links, parse_links, zero_states
from quantcli.errors import UsageError
from quantcli.pipeline.types import DataOptions
from quantcli.runtime.session import Session


def open_samples(options: DataOptions, inputs: Sequence[InputSpec], model: Path) -> Dataset:
    """Open and check the samples that ``options`` name for the float model in ``model``.

    Where states are fed back, the samples hold those that this model computes.

    Raises:
        UsageError, DataError: As ``open_dataset`` says; U109, a state does not fit the model.
    """
    links = links_of(options)
    if links is None:
        return _open(options, inputs)
    session = Session(model)
    check_links(links, inputs, session.outputs)
    steps = _open(options, inputs, optional=links.inputs)
    first: Sample = next(iter(steps), {})
    return StreamedDataset(
        dataset=steps,
        links=links,
        run=session.run,
        start=zero_states(links, inputs, tuple(first), options.shapes),
        order=tuple(spec.name for spec in inputs),
    )


def links_of(options: DataOptions) -> StateLinks | None:
    """The states that are fed back, None for none.

    Raises:
        UsageError: U109, a pair does not parse; U105, the order of the steps is lost.
    """
    links = parse_links(options.states, options.sequence)
    if links is None and options.sequence is not None:
        raise UsageError(
            "U105", "--sequence-length has no effect without --state", hint="add --state OUTPUT=INPUT"
        )
    if links is not None and options.shuffle:
        raise UsageError(
            "U105",
            "--state feeds states from one sample to the next, so the samples cannot be shuffled",
            hint="leave --shuffle out",
        )
    return links


def _open(options: DataOptions, inputs: Sequence[InputSpec], *, optional: Sequence[str] = ()) -> Dataset:
    return open_dataset(
        options.specs,
        inputs,
        samples=options.samples,
        shuffle=options.shuffle,
        seed=options.seed,
        shapes=options.shapes,
        image=parse_image_options(options.image) if options.image else None,
        optional=optional,
    )


def check_mask(mask: str | None, inputs: Sequence[InputSpec]) -> None:
    """Refuse a mask that is no input of the model.

    Raises:
        UsageError: U108.
    """
    names = [spec.name for spec in inputs]
    if mask is not None and mask not in names:
        near = difflib.get_close_matches(mask, names, n=1)
        raise UsageError(
            "U108",
            f"--mask names '{mask}', which is no input of the model",
            hint=f"did you mean '{near[0]}'?" if near else f"its inputs: {', '.join(names)}",
        )


class WatchedSamples:
    """A dataset that takes the fingerprint of its samples while they are read for the first time."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._fingerprint: Fingerprint | None = None
        self.name = dataset.name
        self.synthetic = dataset.synthetic
        self.length = dataset.length
        self.notes = dataset.notes

    def __iter__(self) -> Iterator[Sample]:
        if self._fingerprint is not None:
            yield from self._dataset
            return
        fingerprint = Fingerprint()
        yield from fingerprint.watch(self._dataset)
        self._fingerprint = fingerprint

    @property
    def fingerprint(self) -> Fingerprint:
        """Of all samples; of none before they were read."""
        return self._fingerprint or Fingerprint()
