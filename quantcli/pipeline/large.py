"""Models that are too large to be held in memory, and how the runtime gets to see them nevertheless.

A session of onnxruntime holds all weights, most of them twice: as they are stored and as its kernels want them. So
the runtime checks the graph of a large model without its weights, and runs the model part by part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from quantcli.data.base import InputSpec
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import model_size
from quantcli.graph.read_view import load_named
from quantcli.graph.weightless import without_weights
from quantcli.runtime.in_parts import UNPACKED, InParts
from quantcli.runtime.session import Session, SessionSettings
from quantcli.runtime.trial_run import refuse_crash

LARGE_MODEL_BYTES = 1_000_000_000
"""Files beyond this are checked without their weights, and run part by part."""

_CHECKED = (
    "the model has {size:.1f} GB, so onnxruntime checked its graph without the weights, and runs it part by part"
)


class Runner(Protocol):
    """What runs a model: a session, or something that takes its place."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name of one run on a complete feed."""
        ...


def is_large(path: Path) -> bool:
    """Whether a model's file and its external data are beyond ``LARGE_MODEL_BYTES``.

    Raises:
        ModelError: The file or its external data are unreadable.
    """
    return is_large_size(model_size(path))


def is_large_size(size: int) -> bool:
    """Whether so many bytes are beyond ``LARGE_MODEL_BYTES``."""
    return size > LARGE_MODEL_BYTES


def stated_inputs(model: OnnxModel, path: Path, *, threads: int) -> tuple[tuple[InputSpec, ...], tuple[str, ...]]:
    """Inputs of a model as the runtime states them, which checks it on the way; and what is to be told of that.

    Args:
        model: It.
        path: Its file.
        threads: Intra-op threads.

    Raises:
        RuntimeFailure: R101, onnxruntime does not load it, or would end the process.
    """
    large = is_large(path)
    if large:
        structure = without_weights(model)
        session = Session(structure.model.to_bytes(), SessionSettings(threads=threads, optimization="disabled"))
        found = [spec for spec in session.inputs if spec.name not in structure.weights]
    else:
        if model.has_half:
            refuse_crash(path)
        found = list(Session(path, SessionSettings(threads=threads)).inputs)
    notes = (_CHECKED.format(size=model_size(path) / 1e9),) if large else ()
    return tuple(InputSpec(name=spec.name, dtype=spec.dtype, shape=spec.shape) for spec in found), notes


def open_runner(path: Path, settings: SessionSettings) -> Runner:
    """What runs the model in ``path`` a few times: a session, or one part after the other where it is large.

    Weights of parts stay as they are stored, which is slower and takes half the memory.

    Raises:
        ModelError: The file is unreadable.
        RuntimeFailure: R101, onnxruntime does not load it.
    """
    if not is_large(path):
        return Session(path, settings)
    return InParts(load_named(path), replace(settings, config={**settings.config, **UNPACKED}))
