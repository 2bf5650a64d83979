"""Running a model part by part, in the memory of its largest weights.

Each part is written to a temporary file, loaded, run, and deleted; the arrays that pass from part to part stay in
memory. What runs is what a session of the whole model runs, except for fusions across the borders of parts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from quantcli.errors import RuntimeFailure
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import save_model
from quantcli.graph.parts import Parts
from quantcli.graph.shapes import state_types
from quantcli.runtime.session import Session, SessionSettings

PART_BYTES = 64 * 2**20
"""Weights of a part, unless one node has more."""

UNPACKED: Mapping[str, str] = MappingProxyType({"session.disable_prepacking": "1"})
"""Configuration of a session that uses weights as they are stored: slower, in half the memory."""

Seen = Callable[[Path], None]
"""Is shown the file of a part before it runs."""


class InParts:
    """A model that runs part by part.

    Args:
        model: Every node of its main graph has a name of its own; values that pass from part to part are arrays.
        settings: Of the sessions.
        part_bytes: Weights of a part; None for ``PART_BYTES``.

    Raises:
        ModelError: The graph has a cycle (M102).
    """

    def __init__(self, model: OnnxModel, settings: SessionSettings, *, part_bytes: int | None = None) -> None:
        self._parts = Parts(model, PART_BYTES if part_bytes is None else part_bytes)
        self._settings = settings
        self._view = model.view()

    def __len__(self) -> int:
        """Number of parts."""
        return len(self._parts)

    def run(self, feeds: Mapping[str, np.ndarray], seen: Seen | None = None) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            feeds: Complete feed: every input by name.
            seen: Is shown the file of every part.

        Returns:
            Output arrays by name, in the order of the model.

        Raises:
            RuntimeFailure: R101, R102, a part does not load or run.
        """
        values = dict(feeds)
        for part in self._parts:
            piece = part.piece
            known = {name: self._value(name, values) for name in piece.inputs}
            types = {name: (_dtype(array), (None,) * array.ndim) for name, array in known.items()}
            state_types(piece.model, types)
            with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
                path = Path(folder) / "part.onnx"
                save_model(piece.model, path, external_threshold_bytes=0, durable=False)
                if seen is not None:
                    seen(path)
                values |= Session(path, self._settings).run(known, piece.outputs)
            values = {name: value for name, value in values.items() if name in part.needed}
        return {name: self._value(name, values) for name in self._view.outputs}

    def _value(self, name: str, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """What was fed or made, or else a constant: a default that may be fed, or an output of the model."""
        found = values.get(name)
        if found is None and self._view.is_constant(name):
            found = self._view.constant(name)
        if not isinstance(found, (np.ndarray, np.generic)):
            what = "is not fed" if found is None else "is no array, which cannot pass from part to part"
            raise RuntimeFailure("R102", f"value '{name}' {what}", hint="feed every input of the model")
        return np.asarray(found)


def _dtype(array: np.ndarray) -> str:
    """Name of the element type; texts are kept as objects."""
    return "str" if array.dtype.kind in "OUS" else array.dtype.name
