"""Code of the user's own: ``FILE.py:NAME`` or ``MODULE:NAME``. It runs only because the user named it.

A file is run under a private name and leaves nothing in ``sys.modules``; while it runs (and while its functions
do) its directory is the first on ``sys.path``, so that it may import its neighbours; for a module it is the
working directory. Byte code is not written next to the file. What it prints goes to standard error.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

from quantcli.data.problems import did_you_mean, printable
from quantcli.errors import DataError

_PRIVATE = "_quantcli_user_data"
_OURS = str(Path(__file__).parent.parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCode:
    """Something callable of the user's.

    Attributes:
        label: How messages name it: "FILE.py:NAME", without directories.
        function: The function or class.
        home: First on ``sys.path`` while it runs.
        file: The user's file, None for a module.
    """

    label: str
    function: Callable[..., Any]
    home: str
    file: str | None


def load_callable(where: str, name: str, label: str, wanted: str) -> UserCode:
    """Load a function or class.

    Args:
        where: "FILE.py", or the name of a module.
        name: What to take of it.
        label: How messages name it.
        wanted: What it has to be, for the hint.

    Raises:
        DataError: D103, there is no such file; D109, it does not load, or has no such function.
    """
    if where.endswith(".py"):
        path = Path(where).expanduser()
        if not path.is_file():
            raise DataError("D103", f"'{printable(path.name)}' does not exist", hint="check the path")
        home, file = str(path.resolve().parent), str(path.resolve())
        with running(label, home, file):
            module = _run_file(file)
    else:
        home, file = str(Path.cwd()), None
        with running(label, home, file):
            module = importlib.import_module(where)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise DataError(
            "D109",
            f"'{printable(Path(where).name)}' has no function '{name}'{did_you_mean(name, known)}",
            hint=f"name {wanted}",
        )
    return UserCode(label=label, function=function, home=home, file=file)


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


@contextmanager
def running(label: str, home: str, file: str | None) -> Iterator[None]:
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
    own = [f for f in frames if (f.filename == file if file else not f.filename.startswith(_OURS))]
    own = [
        f for f in own if not f.filename.startswith("<frozen ") and f"{os.sep}importlib{os.sep}" not in f.filename
    ]
    if not own:
        return ""
    return f" at line {own[-1].lineno} of '{printable(Path(own[-1].filename).name)}'"


def _said(error: BaseException) -> str:
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return f"{type(error).__name__}: {printable(text)}" if text else type(error).__name__
