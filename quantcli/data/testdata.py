"""ONNX test data: ``test_data_set_*/input_k.pb``, one complete feed per set.

The format of the ONNX backend tests and the model zoo: ``input_k`` is the k-th input of the graph; where every
tensor carries the name of an input, the names count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantcli.data.adapt import Adapter, cast_note, target_dtype
from quantcli.data.base import InputSpec, Sample, shape_text
from quantcli.data.candidate import Candidate, failed
from quantcli.data.fit import misfit_of_feed
from quantcli.data.natural import natural_sorted
from quantcli.data.problems import Problem, printable, quoted
from quantcli.errors import DataError

_INPUT = re.compile(r"input_([0-9]+)\.pb")


@dataclass(frozen=True, slots=True, kw_only=True)
class TestDataSource:
    """Sets of tensors.

    Attributes:
        label: Printable name, without directories.
        inputs: Names of the inputs.
        sets: For each sample, the file of every input.
        adapters: Cast of every input.
        notes: Casts.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name

    label: str
    inputs: tuple[str, ...]
    sets: tuple[Mapping[str, Path], ...]
    adapters: Mapping[str, Adapter]
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    executes_code: bool = False

    @property
    def length(self) -> int:
        """Number of sets."""
        return len(self.sets)

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Samples ``indices`` in this order, all for None; see :class:`~quantcli.data.base.Source`."""
        for index in range(len(self.sets)) if indices is None else indices:
            yield {name: self.adapters[name](_read(self.sets[index][name])[1]) for name in self.inputs}


def test_data_sets(folder: Path) -> list[Path]:
    """The sets in a directory: itself when it holds ``input_0.pb``, else its ``test_data_set_*``."""
    if any(_INPUT.fullmatch(path.name) for path in folder.iterdir()):
        return [folder]
    found = [
        path
        for path in folder.glob("test_data_set_*")
        if path.is_dir() and any(_INPUT.fullmatch(child.name) for child in path.iterdir())
    ]
    return natural_sorted(found, folder)


test_data_sets.__test__ = False  # type: ignore[attr-defined]  # see TestDataSource


def open_test_data(folder: Path, targets: tuple[InputSpec, ...]) -> Candidate:
    """A directory of test data; every tensor is read once and let go, to see that it fits."""
    label = printable(folder.name or folder.resolve().name)
    sets: list[Mapping[str, Path]] = []
    problems: list[Problem] = []
    notes: dict[str, None] = {}
    provides: frozenset[str] | None = None
    for child in test_data_sets(folder):
        try:
            files = _assign(child, targets)
            for spec in targets:
                if spec.name in files:
                    notes.update(dict.fromkeys(_check(spec, child, files[spec.name])))
        except DataError as error:
            problems.append(Problem.of(error))
            continue
        given = frozenset(files)
        if provides is not None and given != provides:
            problems.append(
                Problem(
                    code="D107",
                    message=f"'{printable(child.name)}' does not give the same inputs as the other sets",
                )
            )
        provides = given if provides is None else provides
        sets.append(files)
    if problems:
        return failed(*problems, provides=provides)
    assert provides is not None  # the caller saw at least one set
    inputs = tuple(spec.name for spec in targets if spec.name in provides)
    adapters = {spec.name: Adapter(dtype=target_dtype(spec)) for spec in targets if spec.name in provides}
    source = TestDataSource(label=label, inputs=inputs, sets=tuple(sets), adapters=adapters, notes=tuple(notes))
    return Candidate(source=source, provides=provides)


def _read(path: Path) -> tuple[str, np.ndarray]:
    from quantcli.graph.tensor_file import read_tensor  # onnx takes long to import

    return read_tensor(path)


def _assign(folder: Path, targets: tuple[InputSpec, ...]) -> dict[str, Path]:
    """The file of every input in one set."""
    numbered = {
        int(match[1]): path for path in folder.iterdir() if (match := _INPUT.fullmatch(path.name)) is not None
    }
    files = [numbered[number] for number in sorted(numbered)]
    carried = [_read(path)[0] for path in files]
    names = {spec.name for spec in targets}
    if len(set(carried)) == len(carried) and names.issuperset(carried):
        return dict(zip(carried, files, strict=True))
    if max(numbered) >= len(targets):
        raise DataError(
            "D107",
            f"'{printable(folder.name)}' has an input_{max(numbered)}.pb, but there are {len(targets)} inputs "
            f"to feed: {quoted(spec.name for spec in targets)}",
        )
    return {targets[number].name: path for number, path in numbered.items()}


def _check(spec: InputSpec, folder: Path, path: Path) -> tuple[str, ...]:
    """Notes on one tensor; a DataError when it does not fit."""
    label = f"'{printable(f'{folder.name}/{path.name}')}'"
    array = _read(path)[1]
    misfit = misfit_of_feed(spec, array)
    if misfit is not None:
        raise DataError(
            "D107",
            f"input '{spec.name}' expects {spec}; {label} has {array.dtype.name} "
            f"{shape_text(array.shape)}: {misfit}",
        )
    note = cast_note(f"'{printable(path.name)}'", array.dtype, spec)
    return (note,) if note else ()
