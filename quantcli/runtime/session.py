"""onnxruntime sessions with every setting that influences results stated.

A session is the only way of this package to run a model. Telemetry, thread spinning and log noise are
off; the number of threads and the optimization level are always explicit, so that results do not depend on
the machine's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from quantcli.errors import RuntimeFailure, UsageError

CPU = ("CPUExecutionProvider",)

_LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}

_CONVERTIBLE = ("float16", "float32")
"""Float types that feeds are converted between."""

_NUMPY_NAMES = {"float": "float32", "double": "float64", "string": "str"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """An input or output of a session.

    Attributes:
        name: Its name.
        dtype: numpy name ("float32", "int64", "bool", "str", …).
        shape: int, symbolic name or None per axis.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How a session is made.

    Attributes:
        threads: Intra-op threads; at least 1.
        optimization: "all", "extended", "basic" or "disabled".
        config: onnxruntime session config entries.
        providers: Execution providers in order of preference.
        optimized_path: Where onnxruntime writes the graph that it really runs.
        profile_prefix: Where onnxruntime writes the times of nodes, as PREFIX_….json; None for no times.
    """

    threads: int = 1
    optimization: str = "all"
    config: Mapping[str, str] = field(default_factory=dict)
    providers: tuple[str, ...] = CPU
    optimized_path: Path | None = None
    profile_prefix: Path | None = None


def _first_line(error: Exception) -> str:
    """What onnxruntime said, on one line and without its prefix of codes."""
    text = " ".join(str(error).split())
    head, separator, tail = text.partition(" : FAIL : ")
    return tail if separator else head


class Session:
    """A loaded model.

    Raises:
        RuntimeFailure: R101, onnxruntime does not load the model.
        UsageError: U203, a provider is not there; onnxruntime itself would fall back in silence.
    """

    def __init__(self, model: bytes | Path | str, settings: SessionSettings | None = None) -> None:
        settings = settings or SessionSettings()
        options = ort.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = _LEVELS[settings.optimization]
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for key, value in sorted(settings.config.items()):
            options.add_session_config_entry(key, value)
        if settings.optimized_path is not None:
            options.optimized_model_filepath = str(settings.optimized_path)
        if settings.profile_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(settings.profile_prefix)
        source = model if isinstance(model, bytes) else str(model)
        missing = [name for name in settings.providers if name not in ort.get_available_providers()]
        if missing:
            raise UsageError(
                "U203",
                f"the installed onnxruntime has no execution provider '{missing[0]}'",
                hint=f"it has: {', '.join(ort.get_available_providers())}",
            )
        try:
            self._session = ort.InferenceSession(source, options, providers=list(settings.providers))
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise RuntimeFailure(
                "R101",
                f"onnxruntime {ort.__version__} does not load the model: {_first_line(error)}",
                hint="check that onnxruntime runs the file by itself; newer opsets need a newer one",
            ) from error
        self.inputs = tuple(_spec(arg) for arg in self._session.get_inputs())
        self.outputs = tuple(_spec(arg) for arg in self._session.get_outputs())
        self.output_names = tuple(spec.name for spec in self.outputs)
        self._floats = {spec.name: np.dtype(spec.dtype) for spec in self.inputs if spec.dtype in _CONVERTIBLE}

    def run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            feeds: Complete feed: every input by name. An array of float32 is rounded for an input of float16, and
                the other way round, so that a model with converted inputs takes the samples of its original.
            names: Outputs wanted; all by default, and none for an empty sequence.

        Returns:
            Output arrays by name. Sequences and maps come as onnxruntime gives them.

        Raises:
            RuntimeFailure: R102, the run failed.
        """
        wanted = list(self.output_names if names is None else names)
        if not wanted:  # onnxruntime would take an empty list for all outputs
            return {}
        try:
            values: list[Any] = self._session.run(wanted, self._fitted(feeds))
        except Exception as error:  # see above
            raise RuntimeFailure(
                "R102",
                f"onnxruntime failed while running the model: {_first_line(error)}",
                hint="run the float model on the same sample: is the data at fault or the model?",
            ) from error
        return dict(zip(wanted, values, strict=True))

    def _fitted(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``feeds`` in the float types of the inputs."""
        found = {key: _array(value) for key, value in feeds.items()}
        for name, dtype in self._floats.items():
            array = found.get(name)
            if isinstance(array, np.ndarray) and array.dtype != dtype and array.dtype.name in _CONVERTIBLE:
                found[name] = np.asarray(array, dtype)
        return found

    def end_profile(self) -> Path:
        """Close the file of times that ``profile_prefix`` asked for, and say which one it is."""
        return Path(self._session.end_profiling())


def _array(value: np.ndarray) -> np.ndarray:
    """Arithmetic on arrays without axes gives scalars of numpy, which onnxruntime does not take."""
    return np.asarray(value) if isinstance(value, np.generic) else value


def _spec(arg: Any) -> TensorSpec:
    kind = arg.type
    if kind.startswith("tensor("):
        kind = kind.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(name=arg.name, dtype=_NUMPY_NAMES.get(kind, kind), shape=tuple(arg.shape))


def runtime_version() -> str:
    """Version of the installed onnxruntime."""
    return str(ort.__version__)
