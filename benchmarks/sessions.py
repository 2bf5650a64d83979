"""onnxruntime sessions for the benchmarks: one thread, nothing that spins, CPU."""

from __future__ import annotations

import collections
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

_NUMPY = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}

# Operators whose time int8 kernels can win back, as onnxruntime calls them after its fusions.
HEAVY = ("Conv", "FusedConv", "MatMul", "FusedMatMul", "Gemm", "FusedGemm")


def options(profile_prefix: str | None = None) -> ort.SessionOptions:
    """One thread, no spinning, all optimizations; a profile where a prefix is given."""
    found = ort.SessionOptions()
    found.intra_op_num_threads = 1
    found.inter_op_num_threads = 1
    found.log_severity_level = 4
    found.add_session_config_entry("session.intra_op.allow_spinning", "0")
    found.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if profile_prefix is not None:
        found.enable_profiling = True
        found.profile_file_prefix = profile_prefix
    return found


def open_session(model: Path | bytes, profile_prefix: str | None = None) -> ort.InferenceSession:
    """A session on the CPU provider, of a file or of a serialized model."""
    source = str(model) if isinstance(model, Path) else model
    return ort.InferenceSession(source, options(profile_prefix), providers=["CPUExecutionProvider"])


def input_dtypes(session: ort.InferenceSession) -> dict[str, Any]:
    """NumPy type of every input."""
    return {entry.name: _NUMPY[entry.type] for entry in session.get_inputs()}


def float_outputs(session: ort.InferenceSession) -> dict[str, int]:
    """Names of the outputs that hold floats, with their positions."""
    return {entry.name: place for place, entry in enumerate(session.get_outputs()) if "float" in entry.type}


def time_by_operator(model: Path, samples: list[dict[str, np.ndarray]], folder: Path) -> dict[str, float]:
    """Microseconds in kernels by operator type, by onnxruntime's own profile.

    The median over the samples of every node, so that the first runs and interruptions do not count.
    """
    session = open_session(model, str(folder / "profile"))
    for sample in samples:
        session.run(None, sample)
    profile = Path(session.end_profiling())
    events = json.loads(profile.read_text(encoding="utf-8"))
    profile.unlink()
    times: collections.defaultdict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"], event["name"]].append(event["dur"])
    found: collections.Counter[str] = collections.Counter()
    for (op_type, _), values in times.items():
        found[op_type] += statistics.median(values)
    return dict(found)


def heavy_share(times: dict[str, float]) -> float:
    """Part of the kernel time that convolutions and matrix products take, 0 to 1."""
    # Nodes that hold graphs (If, Loop) count their bodies twice; leave them out.
    total = sum(spent for op, spent in times.items() if op not in ("If", "Loop", "Scan"))
    return sum(times.get(op, 0.0) for op in HEAVY) / total if total else 0.0
