"""Samples for a model, from the options of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantcli.data.base import Dataset, InputSpec, Sample
from quantcli.data.dataset import open_dataset
from quantcli.data.fingerprint import Fingerprint
from quantcli.data.options import parse_image_options
from quantcli.pipeline.types import DataOptions


def open_samples(options: DataOptions, inputs: Sequence[InputSpec]) -> Dataset:
    """Open and check the samples that ``options`` name.

    Raises:
        UsageError, DataError: As ``open_dataset`` says.
    """
    return open_dataset(
        options.specs,
        inputs,
        samples=options.samples,
        shuffle=options.shuffle,
        seed=options.seed,
        shapes=options.shapes,
        image=parse_image_options(options.image) if options.image else None,
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
