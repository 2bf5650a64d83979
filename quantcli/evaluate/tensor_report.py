"""The report with what the tensors inside say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from quantcli.errors import ModelError, RuntimeFailure
from quantcli.evaluate.outputs import SampleSource
from quantcli.evaluate.tensor_run import Models
from quantcli.evaluate.tensors import TensorOptions, compare_tensors
from quantcli.graph.read_view import read_model
from quantcli.progress import Progress, SilentProgress
from quantcli.report.schema import Report

_EXPOSED = frozenset({"M106", "R101", "R102"})
"""Codes of what a model that runs by itself may do when its values are asked for."""


def with_tensors(
    report: Report,
    paths: tuple[Path, Path],
    dataset: SampleSource | None,
    options: TensorOptions,
    threads: int,
    progress: Progress | None,
) -> Report:
    """``report`` with its tensors compared; without samples, with what weights and parameters prove.

    A model that runs by itself and not with its values exposed (too large for one message, values that the
    runtime does not give out) is compared as if there were no samples, and a note says why.
    """
    original, quantized = read_model(paths[0]), read_model(paths[1])
    models = Models(original=original, quantized=quantized, view=original.view(), quantized_view=quantized.view())
    progress = progress or SilentProgress()
    try:
        found = compare_tensors(models, dataset, options, threads=threads, progress=progress)
    except (ModelError, RuntimeFailure) as error:
        if error.code not in _EXPOSED:
            raise
        found = compare_tensors(models, None, options, threads=threads, progress=progress)
        note = f"activations were not compared: {error.message}"
        found = dataclasses.replace(found, notes=(*found.notes, note))
    return dataclasses.replace(report, tensors=found)
