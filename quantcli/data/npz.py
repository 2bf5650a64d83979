"""``.npz`` archives and ``.npy`` files: keys are input names, the leading axis runs over samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantcli.data.arrays import ArraySource, Column, Shard
from quantcli.data.base import InputSpec
from quantcli.data.candidate import Candidate, failed, no_match, only_target
from quantcli.data.fit import ArrayOptions, fit_array
from quantcli.data.problems import Problem, printable, quoted
from quantcli.data.stored import StoredArray, inspect_npy, inspect_npz
from quantcli.errors import DataError


def open_npy(path: Path, targets: tuple[InputSpec, ...], options: ArrayOptions) -> Candidate:
    """A ``.npy`` file for the only target."""
    target = only_target(targets, printable(path.name))
    if isinstance(target, Problem):
        return failed(target)
    provides = frozenset({target.name})
    try:
        stored = inspect_npy(path)
    except DataError as error:
        return failed(Problem.of(error), provides=provides)
    shard = fit_shard({target.name: stored}, (target,), options)
    if not isinstance(shard, Shard):
        return failed(*shard, provides=provides)
    return Candidate(source=one_shard(path, shard, ()), provides=provides)


def open_npz(path: Path, targets: tuple[InputSpec, ...], options: ArrayOptions) -> Candidate:
    """A ``.npz`` archive with a key per input."""
    try:
        arrays = inspect_npz(path)
    except DataError as error:
        return failed(Problem.of(error))
    matched, spare, notes = match_keys(arrays, targets, printable(path.name))
    if not matched:
        return failed(no_match(printable(path.name), spare, targets))
    shard = fit_shard(matched, targets, options)
    provides = frozenset(matched)
    if not isinstance(shard, Shard):
        return Candidate(provides=provides, spare=spare, problems=shard)
    return Candidate(source=one_shard(path, shard, notes), provides=provides, spare=spare)


def match_keys(
    arrays: Sequence[StoredArray], targets: tuple[InputSpec, ...], label: str
) -> tuple[dict[str, StoredArray], tuple[str, ...], tuple[str, ...]]:
    """Arrays by input name, keys that are no inputs, and notes about both.

    A single array feeds a single target whatever its key is (``arr_0`` of ``numpy.savez(path, array)``).
    """
    names = {spec.name for spec in targets}
    matched = {stored.key: stored for stored in arrays if stored.key in names}
    spare = tuple(stored.key for stored in arrays if stored.key not in names)
    if not matched and len(targets) == 1 and len(arrays) == 1:
        name = targets[0].name
        note = f"'{label}': key '{printable(arrays[0].key)}' is taken for input '{name}', the only one"
        return {name: arrays[0]}, (), (note,)
    notes: tuple[str, ...] = ()
    if matched and spare:
        notes = (f"'{label}': not used: {quoted(printable(key) for key in spare)}",)
    return matched, spare, notes


def fit_shard(
    arrays: dict[str, StoredArray],
    targets: tuple[InputSpec, ...],
    options: ArrayOptions,
    *,
    one_per_file: bool = False,
) -> Shard | tuple[Problem, ...]:
    """Columns for every array, in the order of the inputs; or all that does not fit."""
    columns: list[Column] = []
    problems: list[Problem] = []
    for spec in targets:
        stored = arrays.get(spec.name)
        if stored is None:
            continue
        fitted = fit_array(spec, stored.label, stored.dtype, stored.shape, options, one_per_file=one_per_file)
        if isinstance(fitted, Problem):
            problems.append(fitted)
        else:
            columns.append(Column(input=spec.name, stored=stored, fitted=fitted))
    if not problems and len({column.fitted.feeds for column in columns}) > 1:
        counts = ", ".join(f"{column.fitted.feeds} of '{column.input}'" for column in columns)
        problems.append(
            Problem(
                code="D107",
                message=f"'{printable(columns[0].stored.path.name)}' holds unequal numbers of samples: {counts}",
                hint="the leading axis of every array runs over the same samples; repeat what is constant",
            )
        )
    return tuple(problems) or Shard(columns=tuple(columns))


def one_shard(path: Path, shard: Shard, notes: tuple[str, ...]) -> ArraySource:
    """A source of a single shard."""
    return ArraySource(
        label=printable(path.name),
        inputs=tuple(column.input for column in shard.columns),
        shards=(shard,),
        notes=notes + tuple(note for column in shard.columns for note in column.fitted.notes),
    )
