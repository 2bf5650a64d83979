"""Samples from a Python function: ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION``. This runs the user's code.

The function is called without arguments, once per pass over the data, and returns or yields dictionaries of
arrays: each a complete feed, batch axis included. How the code is loaded and run: ``data.user_code``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.data.adapt import Adapter, cast_note, target_dtype
from quantcli.data.base import InputSpec, Sample, shape_text
from quantcli.data.candidate import Candidate, failed, no_match
from quantcli.data.fit import misfit_of_feed
from quantcli.data.problems import Problem, printable, quoted
from quantcli.data.spec import DataSpec, split_function
from quantcli.data.user_code import load_callable, running
from quantcli.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSource:
    """What a function yields.

    Attributes:
        label: "FILE.py:FUNCTION", without directories.
        targets: The inputs that it gives.
        function: The user's function.
        home: First on ``sys.path`` while it runs.
        file: The user's file, None for a module.
        length: Number of samples where the function returns a list, else None.
        notes: Casts and names that are not used.
    """

    label: str
    targets: tuple[InputSpec, ...]
    function: Callable[[], object]
    home: str
    file: str | None
    length: int | None
    notes: tuple[str, ...]
    synthetic: bool = False
    executes_code: bool = True

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that it gives."""
        return tuple(spec.name for spec in self.targets)

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Samples ``indices``, which must increase, all for None; see ``base.Source``."""
        wanted = None if indices is None else iter(indices)
        following = None if wanted is None else next(wanted, None)
        for index, item in enumerate(_items(self.function, self.label, self.home, self.file)):
            if wanted is None:
                yield _feed(item, self.targets, self.label, index)
            elif index == following:
                yield _feed(item, self.targets, self.label, index)
                following = next(wanted, None)
                if following is None:
                    return
        if following is not None:
            raise DataError(
                "D109", f"'{self.label}' gave fewer samples than before", hint="yield the same in every call"
            )


def open_function(spec: DataSpec, targets: tuple[InputSpec, ...]) -> Candidate:
    """Load the function, and look at its first sample."""
    label = spec.label
    try:
        code = load_callable(
            *split_function(spec), label, "a function without arguments that yields dictionaries of arrays"
        )
        function, home, file = code.function, code.home, code.file
        with running(label, home, file):
            returned = function()
        length = len(returned) if isinstance(returned, Sequence) else None
        iterator = _iterate(returned, label, home, file)
        first = next(iterator, None)
        if first is None:
            return failed(Problem(code="D106", message=f"'{label}' gave no samples"))
        item = _mapping(first, label, 0)
    except DataError as error:
        return failed(Problem.of(error))
    given = tuple(target for target in targets if target.name in item)
    spare = tuple(str(name) for name in item if name not in {target.name for target in targets})
    provides = frozenset(target.name for target in given)
    if not given:
        return failed(no_match(label, spare, targets))
    try:
        _feed(first, given, label, 0)
    except DataError as error:
        return Candidate(provides=provides, spare=spare, problems=(Problem.of(error),))
    notes = [f"'{label}': not used: {quoted(map(printable, spare))}"] if spare else []
    for target in given:
        note = cast_note(f"'{label}'", np.asarray(item[target.name]).dtype, target)
        notes += [note] if note else []
    source = FunctionSource(
        label=label,
        targets=given,
        function=function,
        home=home,
        file=file,
        length=length,
        notes=tuple(notes),
    )
    return Candidate(source=source, provides=provides, spare=spare)


def _items(function: Callable[[], object], label: str, home: str, file: str | None) -> Iterator[object]:
    with running(label, home, file):
        returned = function()
    yield from _iterate(returned, label, home, file)


def _iterate(returned: object, label: str, home: str, file: str | None) -> Iterator[object]:
    """The items; user code runs only inside ``_running``, never while an item is out."""
    if isinstance(returned, Mapping) or not isinstance(returned, Iterable):
        raise DataError(
            "D109",
            f"'{label}' gave {type(returned).__name__}, not samples",
            hint="yield one dictionary per sample, or return a list of them",
        )
    with running(label, home, file):
        iterator = iter(returned)
    while True:
        with running(label, home, file):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def _mapping(item: object, label: str, index: int) -> Mapping[str, object]:
    if not isinstance(item, Mapping):
        raise DataError(
            "D109",
            f"sample {index} of '{label}' is of type {type(item).__name__}, not a dictionary",
            hint="yield {INPUT: array, ...}",
        )
    return item


def _feed(item: object, targets: tuple[InputSpec, ...], label: str, index: int) -> Sample:
    """The sample as the model takes it; a DataError when it does not fit."""
    values = _mapping(item, label, index)
    feed: dict[str, np.ndarray] = {}
    wrong: list[str] = []
    for spec in targets:
        if spec.name not in values:
            wrong.append(f"input '{spec.name}' is missing")
            continue
        try:
            array = np.asarray(values[spec.name])
        except (ValueError, TypeError) as error:
            wrong.append(f"input '{spec.name}' is no array: {' '.join(str(error).split())}")
            continue
        misfit = "it holds Python objects" if array.dtype.hasobject else misfit_of_feed(spec, array)
        if misfit is None:
            adapted = Adapter(dtype=target_dtype(spec))(array)
            # A copy, since generators like to fill the same array again for the next sample.
            feed[spec.name] = adapted.copy() if np.may_share_memory(adapted, array) else adapted
            continue
        batch = spec.rank is not None and array.ndim == spec.rank - 1
        wrong.append(
            f"input '{spec.name}' expects {spec}, not {array.dtype.name} {shape_text(array.shape)}: {misfit}"
            + (" (is the batch axis missing?)" if batch else "")
        )
    if wrong:
        raise DataError("D107", f"sample {index} of '{label}' does not fit: {'; '.join(wrong)}")
    return feed
