"""Directories of ``.npz`` or ``.npy`` files in natural order.

* ``.npy`` files named after inputs: one file per input, as one archive would hold them;
* otherwise every file holds some samples: ``.npz`` files have a key per input, ``.npy`` files are for the only
  input. A file may hold rows, or one sample with or without its batch axis (see ``fit``).
"""

from __future__ import annotations

from pathlib import Path

from quantcli.data.arrays import ArraySource, Shard
from quantcli.data.base import InputSpec
from quantcli.data.candidate import Candidate, failed, no_match, only_target
from quantcli.data.fit import ArrayOptions
from quantcli.data.natural import natural_sorted
from quantcli.data.npz import fit_shard, match_keys, one_shard
from quantcli.data.problems import Problem, printable, quoted
from quantcli.data.stored import StoredArray, inspect_npy, inspect_npz
from quantcli.errors import DataError

_TOLD = 5
"""Problems told of one directory: a thousand files tend to share one."""


def array_files(folder: Path) -> list[Path]:
    """The ``.npz`` and ``.npy`` files of a directory, natural order, hidden ones left out."""
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in (".npz", ".npy") and not path.name.startswith(".") and path.is_file()
    ]
    return natural_sorted(found, folder)


def open_directory(folder: Path, targets: tuple[InputSpec, ...], options: ArrayOptions) -> Candidate:
    """A directory of arrays."""
    label = printable(folder.name or folder.resolve().name)
    files = array_files(folder)
    suffixes = {path.suffix.lower() for path in files}
    if len(suffixes) > 1:
        return failed(
            Problem(
                code="D103",
                message=f"directory '{label}' holds both .npz and .npy files",
                hint="keep one kind; a .npy of labels belongs outside the directory of samples",
            )
        )
    by_name = {_file_stem(spec.name): spec.name for spec in targets}
    named = [path for path in files if path.stem in by_name]
    # For a single input called "1", a file 1.npy among others is a sample, not the input.
    if suffixes == {".npy"} and named and (len(targets) > 1 or len(files) == 1):
        return _file_per_input(folder, files, by_name, targets, options)
    return _file_per_sample(label, files, targets, options)


def _file_stem(name: str) -> str:
    """An input's name as a file name: what no file name can hold becomes "_"."""
    return "".join("_" if char in '/\\:*?"<>|' else char for char in name)


def _file_per_input(
    folder: Path,
    files: list[Path],
    by_name: dict[str, str],
    targets: tuple[InputSpec, ...],
    options: ArrayOptions,
) -> Candidate:
    provides = frozenset(by_name[path.stem] for path in files if path.stem in by_name)
    spare = tuple(path.stem for path in files if path.stem not in by_name)
    arrays: dict[str, StoredArray] = {}
    problems = []
    for path in files:
        if path.stem not in by_name:
            continue
        try:
            arrays[by_name[path.stem]] = inspect_npy(path)
        except DataError as error:
            problems.append(Problem.of(error))
    if problems:
        return failed(*problems, provides=provides)
    shard = fit_shard(arrays, targets, options)
    if not isinstance(shard, Shard):
        return failed(*shard, provides=provides)
    label = printable(folder.name or folder.resolve().name)
    notes = (f"'{label}': not used: {quoted(printable(f'{stem}.npy') for stem in spare)}",) if spare else ()
    return Candidate(source=one_shard(folder, shard, notes), provides=provides, spare=spare)


def _file_per_sample(
    label: str, files: list[Path], targets: tuple[InputSpec, ...], options: ArrayOptions
) -> Candidate:
    shards: list[Shard] = []
    notes: dict[str, None] = {}
    problems: list[Problem] = []
    provides: frozenset[str] | None = None
    for path in files:
        outcome = _shard(path, targets, options)
        if isinstance(outcome, Problem):
            problems.append(outcome)
            continue
        shard, problems_here, own_notes = outcome
        problems.extend(problems_here)
        notes.update(dict.fromkeys(own_notes))
        if shard is None:
            continue
        given = frozenset(column.input for column in shard.columns)
        if provides is not None and given != provides:
            missing = sorted(provides ^ given)[0]
            problems.append(
                Problem(code="D107", message=f"directory '{label}': some files hold '{missing}', some do not")
            )
        provides = given if provides is None else provides
        shards.append(shard)
    if problems:
        return failed(*_some_of(problems, label), provides=provides)
    assert provides is not None  # the caller saw at least one file
    inputs = tuple(spec.name for spec in targets if spec.name in provides)
    source = ArraySource(label=label, inputs=inputs, shards=tuple(shards), notes=_merged(tuple(notes), label))
    return Candidate(source=source, provides=provides)


def _shard(
    path: Path, targets: tuple[InputSpec, ...], options: ArrayOptions
) -> Problem | tuple[Shard | None, tuple[Problem, ...], tuple[str, ...]]:
    """(shard, what does not fit, notes) of one file, or why it is none at all."""
    notes: tuple[str, ...] = ()
    try:
        if path.suffix.lower() == ".npy":
            target = only_target(targets, printable(path.name))
            if isinstance(target, Problem):
                return target
            matched = {target.name: inspect_npy(path)}
        else:
            matched, spare, notes = match_keys(inspect_npz(path), targets, printable(path.name))
            if not matched:
                return no_match(printable(path.name), spare, targets)
    except DataError as error:
        return Problem.of(error)
    shard = fit_shard(matched, targets, options, one_per_file=True)
    if not isinstance(shard, Shard):
        return None, shard, notes
    fitted = tuple(note for column in shard.columns for note in column.fitted.notes)
    return shard, (), notes + fitted


def _some_of(problems: list[Problem], label: str) -> list[Problem]:
    if len(problems) <= _TOLD:
        return problems
    rest = len(problems) - _TOLD
    return [
        *problems[:_TOLD],
        Problem(code="D107", message=f"directory '{label}': {rest} more files have such problems"),
    ]


def _merged(notes: tuple[str, ...], label: str) -> tuple[str, ...]:
    """The notes, or the first of them when every file has one of its own."""
    if len(notes) <= _TOLD:
        return notes
    return (*notes[:_TOLD], f"'{label}': {len(notes) - _TOLD} more notes of this kind")
