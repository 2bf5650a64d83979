"""Samples from a Python function: ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION``. This runs the user's code.

The function is called without arguments, once per pass over the data, and returns or yields dictionaries of
arrays: each a complete feed, batch axis included. A file is run under a private name and leaves nothing in
``sys.modules``; while it runs (and while the function does) its directory is the first on ``sys.path``, so that it
may import its neighbours; for a module it is the working directory. Byte code is not written next to the file.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import numpy as np

from quantcli.data.adapt import Adapter, cast_note, target_dtype
from quantcli.data.base import InputSpec, Sample, shape_text
from quantcli.data.candidate import Candidate, failed, no_match
from quantcli.data.fit import misfit_of_feed
from quantcli.data.problems import Problem, did_you_mean, printable, quoted
from quantcli.data.spec import DataSpec, split_function
from quantcli.errors import DataError

_PRIVATE = "_quantcli_user_data"


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
        function, home, file = _load(spec)
        with _running(label, home, file):
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


def _load(spec: DataSpec) -> tuple[Callable[[], object], str, str | None]:
    """(function, directory for sys.path, the user's file)."""
    where, name = split_function(spec)
    if where.endswith(".py"):
        path = Path(where).expanduser()
        if not path.is_file():
            raise DataError("D103", f"'{printable(path.name)}' does not exist", hint="check the path")
        home, file = str(path.resolve().parent), str(path.resolve())
        with _running(spec.label, home, file):
            module = _run_file(file)
    else:
        home, file = str(Path.cwd()), None
        with _running(spec.label, home, file):
            module = importlib.import_module(where)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise DataError(
            "D109",
            f"'{printable(Path(where).name)}' has no function '{name}'{did_you_mean(name, known)}",
            hint="name a function without arguments that yields dictionaries of arrays",
        )
    return function, home, file


class _Loader(SourceFileLoader):
    """Runs a file without writing byte code next to it."""

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write nothing."""


def _run_file(file: str) -> Any:
    found = spec_from_loader(_PRIVATE, _Loader(_PRIVATE, file))
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    previous = sys.modules.get(_PRIVATE)
    sys.modules[_PRIVATE] = module  # dataclasses and typing look their module up while it runs
    try:
        found.loader.exec_module(module)
    finally:
        if previous is None:
            del sys.modules[_PRIVATE]
        else:
            sys.modules[_PRIVATE] = previous
    return module


def _items(function: Callable[[], object], label: str, home: str, file: str | None) -> Iterator[object]:
    with _running(label, home, file):
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
    with _running(label, home, file):
        iterator = iter(returned)
    while True:
        with _running(label, home, file):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@contextmanager
def _running(label: str, home: str, file: str | None) -> Iterator[None]:
    """The user's code may run: its directory is importable, its errors become D109.

    Raises:
        DataError: D109 with the line of the user's file.
    """
    saved = list(sys.path)
    sys.path.insert(0, home)
    try:
        with redirect_stdout(sys.stderr):  # standard output is for what was asked for
            yield
    except (KeyboardInterrupt, DataError):
        raise
    except (Exception, SystemExit) as error:
        raise DataError("D109", f"'{label}' failed{_where(error, file)}: {_said(error)}") from error
    finally:
        sys.path[:] = saved


def _where(error: BaseException, file: str | None) -> str:
    """Where it happened: the last frame in the user's file; for a module the last frame of all."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f" at line {error.lineno} of '{printable(Path(error.filename).name)}'"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename == file] if file else [f for f in frames if f.filename != __file__]
    own = [
        f for f in own if not f.filename.startswith("<frozen ") and f"{os.sep}importlib{os.sep}" not in f.filename
    ]
    if not own:
        return ""
    return f" at line {own[-1].lineno} of '{printable(Path(own[-1].filename).name)}'"


def _said(error: BaseException) -> str:
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return f"{type(error).__name__}: {printable(text)}" if text else type(error).__name__


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
