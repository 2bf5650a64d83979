"""Which samples two runs have in common, so that evaluation never silently uses calibration samples.

The first 8 bytes of each sample's digest are kept (see ``fingerprint``). Among n and m different samples the
probability of any false match is about n·m / 2^64: 10^-12 for 4 000 against 4 000.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleDigests:
    """A set of samples.

    Attributes:
        values: uint64, shape (samples,), sorted, without repetitions, read-only. 8 bytes a sample: this array is
            what calibration files store.
    """

    values: np.ndarray

    def __post_init__(self) -> None:
        values = np.unique(np.asarray(self.values, dtype=np.uint64))
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    @classmethod
    def of(cls, digests: Iterable[bytes]) -> SampleDigests:
        """The set of samples with these digests; their first 8 bytes count."""
        joined = b"".join(digest[:8] for digest in digests)
        return cls(values=np.frombuffer(joined, dtype="<u8"))

    def __len__(self) -> int:
        return int(self.values.size)

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes):
            return False
        return bool(np.isin(np.frombuffer(digest[:8], dtype="<u8"), self.values).all())

    def __or__(self, other: SampleDigests) -> SampleDigests:
        return SampleDigests(values=np.concatenate([self.values, other.values]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampleDigests) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash(self.values.tobytes())

    def overlap(self, other: SampleDigests) -> int:
        """Number of different samples that both hold."""
        return int(np.isin(self.values, other.values, assume_unique=True).sum())
