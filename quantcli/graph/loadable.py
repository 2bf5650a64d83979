"""Models in memory in a form that a session loads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import save_model

INLINE_LIMIT = 1_900_000_000
"""Constants beyond this many bytes do not go through memory as one message."""


@contextmanager
def loadable(model: OnnxModel) -> Iterator[bytes | Path]:
    """``model`` as bytes, or as files where it is too large for that."""
    if model.constant_bytes() < INLINE_LIMIT:
        yield model.to_bytes()
        return
    with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
        path = Path(folder) / "model.onnx"
        save_model(model, path, durable=False)
        yield path
