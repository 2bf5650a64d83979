"""What the programs in this folder have in common.

Each is run as ``python -m tools.NAME`` by an interpreter that has the tool, which need not be the one that has
quantcli, in a process of its own and an empty working directory:

* ``python -m tools.NAME --version`` prints the tool's name and version, and fails where it is not installed;
* ``python -m tools.NAME MODEL CALIB.npz OUT.onnx --form FORM [--complete]`` writes an int8 model and prints, as
  its last line, ``{"notes": […], "error": "…" or null}``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from models import feeds
from sessions import input_dtypes, open_session

TRANSFORMER_SIGNS = frozenset({"LayerNormalization", "SkipLayerNormalization", "Erf", "Gelu"})


@dataclass(kw_only=True)
class Job:
    """One model to quantize.

    Attributes:
        model: The float model.
        calib: npz file, first axis samples.
        output: Where the int8 model goes.
        complete: Rows of ``calib`` are complete feeds.
        notes: What happens on the way.
    """

    model: Path
    calib: Path
    output: Path
    complete: bool
    notes: list[str] = field(default_factory=list)

    def feeds(self, model: Path | None = None) -> Iterator[dict[str, Any]]:
        """The calibration samples, one by one, as ``model`` (default: the float model) takes them."""
        dtypes = input_dtypes(open_session(model or self.model))
        return feeds(self.calib, self.complete, dtypes)

    def count(self) -> int:
        """Number of calibration samples."""
        with np.load(self.calib) as archive:
            return len(archive[archive.files[0]])


class Reader:
    """The samples as most tools take them: one feed by each call, then None."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.rewind()

    def rewind(self) -> None:
        """Begin again with the first."""
        self._feeds = self._job.feeds()

    def get_next(self) -> dict[str, Any] | None:
        """The next feed; None after the last."""
        return next(self._feeds, None)


def reason(error: Exception) -> str:
    """Type and first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160] if text else ''}"


def is_transformer(job: Job) -> bool:
    """Whether a model looks like one: several tools have to be told."""
    types = {node.op_type for node in onnx.load(job.model, load_external_data=False).graph.node}
    found = "MatMul" in types and bool(types & TRANSFORMER_SIGNS)
    if found:
        job.notes.append("treated as a transformer")
    return found


def normalized(job: Job, folder: Path, opset: int = 13) -> Path:
    """The float model, raised to an opset that has per-channel Q/DQ where it is older and that works."""
    proto = onnx.load(job.model)
    version = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if version >= opset:
        return job.model
    try:
        raised = onnx.version_converter.convert_version(proto, opset)
        target = folder / "raised.onnx"
        onnx.save(raised, target)
        open_session(target)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong on their side is a finding
        job.notes.append(f"onnx.version_converter fails: {reason(error)}")
        return job.model
    job.notes.append(f"opset {version} → {opset}")
    return target


def main(package: str, forms: Mapping[str, Callable[[Job], None]]) -> None:
    """The command line of an adapter.

    Args:
        package: Name of the distribution.
        forms: What to do by ``--form``.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", action="version", version=f"{package} {importlib.metadata.version(package)}")
    parser.add_argument("model", type=Path)
    parser.add_argument("calib", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--form", choices=tuple(forms), required=True)
    parser.add_argument("--complete", action="store_true", help="rows of CALIB are complete feeds")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    ort.set_default_logger_severity(4)
    job = Job(
        model=arguments.model.resolve(),
        calib=arguments.calib.resolve(),
        output=arguments.output.resolve(),
        complete=arguments.complete,
    )
    error = None
    with Path(os.devnull).open("w") as silence, contextlib.redirect_stdout(silence):
        try:
            forms[arguments.form](job)
        except Exception as failure:  # noqa: BLE001 - whatever goes wrong on their side is a finding
            error = reason(failure)
    print(json.dumps({"notes": list(dict.fromkeys(job.notes)), "error": error}), flush=True)
    sys.exit(0)
