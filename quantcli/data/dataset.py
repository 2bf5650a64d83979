"""From data specifications to a dataset: everything is checked before the first inference.

A dataset zips sources together. What can be known from headers (names, types, ranks, dimensions, counts, sizes of
images, the first sample of a function) is checked when it is opened, and all problems are told at once. What only
the values tell (NaN, Inf, later samples of a function, damage deep in a file) is checked while they stream by.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.data.base import Dataset, InputSpec, Sample, Source
from quantcli.data.candidate import Candidate
from quantcli.data.detect import open_source
from quantcli.data.options import ImageOptions
from quantcli.data.problems import Problem, did_you_mean, quoted, raise_all
from quantcli.data.spec import DataSpec, parse_data_spec
from quantcli.data.synthetic import symbol_values
from quantcli.errors import DataError, UsageError

__all__ = ["Dataset", "InputSpec", "Sample", "open_dataset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Zipped:
    """Sources side by side: the one implementation of Dataset.

    Attributes:
        name: Printable name, without directories.
        sources: Together they give every input once.
        order: Input names in the order of the model.
        indices: Samples to read, None for all.
        length: Their number, None where only iterating tells.
        limit: Stop after so many; for sources of unknown length.
        notes: What the user should know.
    """

    name: str
    sources: tuple[Source, ...]
    order: tuple[str, ...]
    indices: Sequence[int] | None
    length: int | None
    limit: int | None
    notes: tuple[str, ...]

    @property
    def synthetic(self) -> bool:
        """Whether any input is random."""
        return any(source.synthetic for source in self.sources)

    @property
    def executes_code(self) -> bool:
        """Whether reading runs code of the user."""
        return any(source.executes_code for source in self.sources)

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("the number of samples is known only after reading them")
        return self.length

    def __iter__(self) -> Iterator[Sample]:
        readers = [source.read(self.indices if source.length is not None else None) for source in self.sources]
        number = 0
        while self.limit is None or number < self.limit:
            parts = [next(reader, None) for reader in readers]
            present = [part for part in parts if part is not None]
            if not present:
                return
            if len(present) != len(parts):
                ended = [source.label for source, part in zip(self.sources, parts, strict=True) if part is None]
                raise DataError("D107", f"{quoted(ended)} gave {number} samples, fewer than the other data")
            feed = {name: array for part in present for name, array in part.items()}
            index = number if self.indices is None else int(self.indices[number])
            _check_finite(feed, index)
            yield {name: feed[name] for name in self.order}
            number += 1


def _check_finite(feed: Sample, index: int) -> None:
    for name, array in feed.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "Inf"
            raise DataError(
                "D108",
                f"sample {index} of input '{name}' holds {kind}",
                hint="mend or leave out this sample (samples count from 0)",
            )


def open_dataset(
    specs: Sequence[str | DataSpec],
    inputs: Sequence[InputSpec],
    *,
    samples: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    image: ImageOptions | None = None,
    optional: Collection[str] = (),
) -> Dataset:
    """Open data for a model and check that it fits.

    Args:
        specs: Data specifications (see :mod:`quantcli.data.spec`); together they feed every input once.
        inputs: Inputs of the model.
        samples: At most so many; the first ones, or with ``shuffle`` a random choice.
        shuffle: Read in random order.
        seed: Of the order, and of random data without a seed of its own.
        shapes: Shapes by input name that replace the model's dynamic dimensions.
        image: Preprocessing for images, or for the arrays of a model with one input; options in a
            specification go first.
        optional: Inputs that need no data; samples lack those that get none.

    Returns:
        A dataset that can be iterated again and again, one sample in memory at a time.

    Raises:
        UsageError: D101, a specification does not parse; D102, an option or shape does not apply.
        DataError: Something is wrong with the data; D112 lists several.
    """
    parsed = [parse_data_spec(spec) if isinstance(spec, str) else spec for spec in specs]
    if not parsed:
        raise UsageError("D101", "no data is given", hint="add --data calib.npz, a directory, or random:128")
    if samples is not None and samples < 1:
        raise UsageError("D102", f"{samples} samples are asked for; at least 1 is needed")
    shapes = shapes or {}
    fixed = tuple(_with_shape(spec, shapes) for spec in inputs)
    _check_names(shapes, inputs)
    symbols = symbol_values(inputs, shapes)
    problems = _unknown_names(parsed, inputs)
    claimed = {spec.name for spec in parsed if spec.name is not None}
    free = tuple(spec for spec in fixed if spec.name not in claimed)
    candidates: list[tuple[DataSpec, Candidate]] = []
    for spec in parsed:
        targets = free if spec.name is None else tuple(target for target in fixed if target.name == spec.name)
        if spec.name is None or targets:
            candidate = open_source(spec, targets, image=image, alone=len(inputs) == 1, symbols=symbols, seed=seed)
            candidates.append((spec, candidate))
            problems.extend(candidate.problems)
    problems.extend(_coverage(fixed, candidates, optional))
    sources = tuple(candidate.source for _, candidate in candidates if candidate.source is not None)
    problems.extend(_counts(sources))
    raise_all(problems)
    given = {name for source in sources for name in source.inputs}
    fed = tuple(spec for spec in fixed if spec.name in given)
    return _zipped(parsed, sources, fed, samples, shuffle, seed)


def _zipped(
    specs: Sequence[DataSpec],
    sources: tuple[Source, ...],
    inputs: tuple[InputSpec, ...],
    samples: int | None,
    shuffle: bool,
    seed: int,
) -> Dataset:
    total = next((source.length for source in sources if source.length is not None), None)
    notes = [note for source in sources for note in source.notes]
    if any(source.length is None for source in sources):
        total = None
    if shuffle and (total is None or any(source.executes_code for source in sources)):
        raise UsageError(
            "D102",
            "the samples of a Python function come in its own order and cannot be shuffled",
            hint="shuffle in the function",
        )
    indices: Sequence[int] | None = None
    count = total
    if total is not None:
        count = total if samples is None else min(samples, total)
        if samples is not None and samples > total:
            notes.append(f"{samples} samples are asked for, {total} are there")
        if shuffle:
            indices = tuple(np.random.default_rng(seed).permutation(total)[:count].tolist())
        elif count < total:
            indices = range(count)
    return _Zipped(
        name=", ".join(_name(spec) for spec in specs),
        sources=sources,
        order=tuple(spec.name for spec in inputs),
        indices=indices,
        length=count,
        limit=samples,
        notes=tuple(dict.fromkeys(notes)),
    )


def _name(spec: DataSpec) -> str:
    return spec.label if spec.name is None else f"{spec.name}={spec.label}"


def _with_shape(spec: InputSpec, shapes: Mapping[str, tuple[int, ...]]) -> InputSpec:
    """The input with the shape that the user gave.

    Raises:
        UsageError: D102, the shape contradicts the model's.
    """
    given = shapes.get(spec.name)
    if given is None:
        return spec
    fits = spec.shape is None or (
        len(given) == len(spec.shape)
        and all(not isinstance(want, int) or want == dim for want, dim in zip(spec.shape, given, strict=True))
    )
    if not fits:
        raise UsageError(
            "D102",
            f"shape {'x'.join(map(str, given))} for input '{spec.name}' contradicts the model's {spec}",
        )
    return InputSpec(name=spec.name, dtype=spec.dtype, shape=given)


def _check_names(shapes: Mapping[str, tuple[int, ...]], inputs: Sequence[InputSpec]) -> None:
    names = [spec.name for spec in inputs]
    for name in shapes:
        if name not in names:
            raise UsageError(
                "D102",
                f"a shape is given for '{name}', which is no input{did_you_mean(name, names)}",
                hint=f"the inputs are {quoted(names)}",
            )


def _unknown_names(specs: Sequence[DataSpec], inputs: Sequence[InputSpec]) -> list[Problem]:
    names = [spec.name for spec in inputs]
    return [
        Problem(
            code="D107",
            message=f"data is given for '{name}', which is no input{did_you_mean(name, names)}",
            hint=f"the inputs are {quoted(names)}",
        )
        for name in (spec.name for spec in specs)
        if name is not None and name not in names
    ]


def _coverage(
    inputs: tuple[InputSpec, ...], candidates: Sequence[tuple[DataSpec, Candidate]], optional: Collection[str]
) -> list[Problem]:
    """Inputs that have no data or have it twice."""
    givers: dict[str, list[str]] = {spec.name: [] for spec in inputs}
    for spec, candidate in candidates:
        for name in candidate.provides or ():
            givers[name].append(spec.label)
    problems = [
        Problem(
            code="D107",
            message=f"input '{name}' has data twice: {quoted(labels)}",
            hint="to join files, put them into one directory; to choose, name the input: NAME=PATH",
        )
        for name, labels in givers.items()
        if len(labels) > 1
    ]
    # A file that could not be opened may hold the input; its own problem is told already.
    if any(candidate.provides is None for _, candidate in candidates):
        return problems
    spare = [name for _, candidate in candidates for name in candidate.spare]
    missing = [spec for spec in inputs if not givers[spec.name] and spec.name not in optional]
    for lacking in missing:
        offered = f"; the data holds {quoted(spare)}{did_you_mean(lacking.name, spare)}" if spare else ""
        problems.append(
            Problem(
                code="D107",
                message=f"input '{lacking.name}' ({lacking}) has no data{offered}",
                hint=f"add --data {lacking.name}=PATH, or rename the key",
            )
        )
    return problems


def _counts(sources: tuple[Source, ...]) -> list[Problem]:
    """Sources of known but unequal lengths, or without samples."""
    known = [source for source in sources if source.length is not None]
    if len({source.length for source in known}) <= 1:
        return []
    counts = ", ".join(f"{source.length} in '{source.label}'" for source in known)
    return [
        Problem(
            code="D107",
            message=f"the data holds unequal numbers of samples: {counts}",
            hint="every input needs the same number of samples",
        )
    ]
