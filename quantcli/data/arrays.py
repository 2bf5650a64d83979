"""Sources made of stored arrays: one archive, one file, or a directory of them.

A *shard* is what gives a run of consecutive samples: one archive with a member per input, one ``.npy``, or a set
of ``.npy`` files, one per input. A directory is a row of shards.
"""

from __future__ import annotations

import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from quantcli.data.base import Sample
from quantcli.data.chunks import Chunks, Unpacked, open_any_order, open_forward
from quantcli.data.fit import Fitted
from quantcli.data.stored import StoredArray, reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One input's values in a shard."""

    input: str
    stored: StoredArray
    fitted: Fitted

    @property
    def feed_bytes(self) -> int:
        """Bytes of one feed."""
        # prod of an empty shape is 1: a scalar
        return int(np.prod(self.fitted.feed_shape, dtype=np.int64)) * self.stored.dtype.itemsize

    def feed(self, chunks: Chunks, index: int) -> np.ndarray:
        """Feed ``index`` as the model takes it."""
        data = chunks.read(index)
        raw = np.ndarray(self.fitted.feed_shape, dtype=self.stored.dtype, buffer=data)
        return self.fitted.adapter(raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Columns of equal length, at least one."""

    columns: tuple[Column, ...]

    @property
    def feeds(self) -> int:
        """Number of samples."""
        return self.columns[0].fitted.feeds


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySource:
    """Samples in shards, in their order.

    Attributes:
        label: Printable name, without directories.
        inputs: Names of the inputs that every shard gives.
        shards: At least one.
        notes: Casts, dropped rows, ignored keys.
    """

    label: str
    inputs: tuple[str, ...]
    shards: tuple[Shard, ...]
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    executes_code: bool = False

    @property
    def length(self) -> int:
        """Number of samples."""
        return sum(shard.feeds for shard in self.shards)

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Samples ``indices`` in this order, all for None; see :class:`~quantcli.data.base.Source`."""
        wanted = range(self.length) if indices is None else indices
        forward = _increasing(wanted)
        ends = list(accumulate(shard.feeds for shard in self.shards))
        with ExitStack() as whole:
            unpacked = Unpacked(whole)
            opened = whole.enter_context(ExitStack())
            current = -1
            readers: tuple[Chunks, ...] = ()
            for index in wanted:
                number = bisect_right(ends, index)
                shard = self.shards[number]
                if number != current:
                    opened.close()
                    readers = _open(shard, opened, None if forward else unpacked)
                    current = number
                row = index - (ends[number] - shard.feeds)
                yield {
                    column.input: column.feed(chunks, row)
                    for column, chunks in zip(shard.columns, readers, strict=True)
                }


def _open(shard: Shard, stack: ExitStack, unpacked: Unpacked | None) -> tuple[Chunks, ...]:
    """Readers of a shard's columns; in any order when there is a place to unpack."""
    archives: dict[str, zipfile.ZipFile] = {}
    readers = []
    for column in shard.columns:
        stored = column.stored
        archive = None
        if stored.member is not None:
            key = str(stored.path)
            if key not in archives:
                with reading(stored.label):
                    archives[key] = stack.enter_context(zipfile.ZipFile(stored.path))
            archive = archives[key]
        if unpacked is None:
            readers.append(open_forward(stored, column.feed_bytes, stack, archive))
        else:
            readers.append(open_any_order(stored, column.feed_bytes, stack, archive, unpacked))
    return tuple(readers)


def _increasing(indices: Sequence[int]) -> bool:
    if isinstance(indices, range):
        return indices.step > 0
    return all(first < second for first, second in pairwise(indices))
