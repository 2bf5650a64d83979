"""Models of the ONNX backend suite with their own inputs, as files.

Two variants of each: as it is, and with all inputs but the first as constants, so that layers have weights (most
models of single nodes take their weights as inputs).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")
VARIANTS = ("as it is", "with constants")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model of the suite.

    Attributes:
        kind: Part of the suite.
        name: Name in it.
        model: The model.
        inputs: Values of its first test, in order; None where it has none.
    """

    kind: str
    name: str
    model: onnx.ModelProto
    inputs: tuple[Any, ...] | None


def names_of(kinds: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(kind, name) of every model of some kinds."""
    for kind in kinds:
        yield from ((kind, name) for name in sorted(found(kind)))


_cache: dict[str, dict[str, Any]] = {}


def found(kind: str) -> dict[str, Any]:
    """The suite's own records by name; made once.

    "node/MODULE" are at least those of one module of the kind "node", all of which take seconds to make.
    """
    if kind not in _cache:
        from onnx.backend.test import loader

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # making the inputs overflows on purpose
            if kind.startswith("node/"):
                from onnx.backend.test.case import node

                importlib.import_module(f"{node.__name__}.{kind.removeprefix('node/')}")
                _cache[kind] = {case.name: case for case in node._NodeTestCases}  # noqa: SLF001
            elif kind == "light":
                folder = Path(loader.__file__).parent.parent / "data" / "light"
                _cache[kind] = {file.stem: file for file in sorted(folder.glob("*.onnx"))}
            else:
                _cache[kind] = {case.name: case for case in loader.load_model_tests(kind=kind)}
    return _cache[kind]


def load(kind: str, name: str) -> Case:
    """One model and its inputs."""
    stored = found(kind)[name]
    if isinstance(stored, Path):
        model = onnx.load(stored)
        return Case(kind=kind, name=name, model=model, inputs=_made_up(model))
    model = stored.model
    if model is None:
        model = onnx.load(Path(stored.model_dir) / "model.onnx")
    if stored.data_sets is not None:
        inputs = tuple(_plain(value) for value in stored.data_sets[0][0])
        return Case(kind=kind, name=name, model=model, inputs=inputs)
    files = sorted(
        (Path(stored.model_dir) / "test_data_set_0").glob("input_*.pb"), key=lambda f: int(f.stem.split("_")[1])
    )
    return Case(kind=kind, name=name, model=model, inputs=tuple(_tensor(file) for file in files))


def _tensor(file: Path) -> np.ndarray | None:
    """The tensor in a file; None for sequences and the like."""
    message = onnx.TensorProto()
    try:
        message.ParseFromString(file.read_bytes())
        return numpy_helper.to_array(message)
    except Exception:  # noqa: BLE001 — not a tensor; onnx and protobuf raise several kinds
        return None


def _plain(value: Any) -> Any:
    """Scalars and messages as arrays, where numpy has their type."""
    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, onnx.TensorProto):
        array = numpy_helper.to_array(value)
        return array if array.dtype.kind in "biufcO" else None
    return value


def _made_up(model: onnx.ModelProto) -> tuple[np.ndarray, ...]:
    """Normal values for the inputs of a model of images."""
    rng = np.random.default_rng(0)
    constants = {tensor.name for tensor in model.graph.initializer}
    return tuple(
        rng.normal(0, 1, [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]).astype(np.float32)
        for value in model.graph.input
        if value.name not in constants
    )


def input_names(model: onnx.ModelProto) -> list[str]:
    """Inputs that are no initializers."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in constants]


def with_constants(case: Case) -> Case | None:
    """All tensor inputs but the first as initializers; None where there are none."""
    given = dict(zip(input_names(case.model), case.inputs or (), strict=False))
    tensors = [name for name, value in given.items() if isinstance(value, np.ndarray)][1:]
    if not tensors:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for name in tensors:
        model.graph.initializer.append(numpy_helper.from_array(given[name], name))
        model.graph.input.remove(next(value for value in model.graph.input if value.name == name))
    rest = tuple(value for name, value in given.items() if name not in tensors)
    return Case(kind=case.kind, name=case.name, model=model, inputs=rest)


def write(case: Case, folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """The model and its inputs as files; its feed, None where an input has a type that numpy lacks.

    Sequences are in the feed, but in no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(case.model.SerializeToString())
    names_ = input_names(case.model)
    given = dict(zip(names_, case.inputs or (), strict=False))
    if len(given) < len(names_) or any(value is None for value in given.values()):
        return path, None
    if not all(isinstance(value, np.ndarray) for value in given.values()):
        return path, given
    data = folder / "test_data_set_0"
    data.mkdir(exist_ok=True)
    for index, (name, value) in enumerate(given.items()):
        (data / f"input_{index}.pb").write_bytes(numpy_helper.from_array(value, name).SerializeToString())
    return path, given
