"""Samples for a model, from the options of the command line."""

from __future__ import annotations

from collections.abc import Sequence

from quantcli.data.base import Dataset, InputSpec
from quantcli.data.dataset import open_dataset
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
