"""Digests of samples: what data was used (one fingerprint), and which samples (8 bytes each).

A sample's digest is the SHA-256 over, for every input in the order of names: the lengths and bytes of the
name, the numpy type and the shape as text, and the values in C order, little endian. The fingerprint of a run
of samples is the SHA-256 over their digests in order; it is taken while the samples stream by, without a pass
of its own.

Both are of the *feeds*, after casts and preprocessing: the same samples have the same digests whatever kind of
file they came from.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator

import numpy as np

from quantcli.data.base import Sample
from quantcli.data.overlap import SampleDigests


def sample_digest(sample: Sample) -> bytes:
    """SHA-256 (32 bytes) of one sample; see the module."""
    digest = hashlib.sha256()
    for name in sorted(sample):
        array = sample[name]
        for text in (name, array.dtype.name, ",".join(map(str, array.shape))):
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
        values = np.ascontiguousarray(array)
        if array.dtype.itemsize > 1 and sys.byteorder == "big":
            values = values.byteswap()
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.digest()


class Fingerprint:
    """Fed each sample while it streams by."""

    def __init__(self) -> None:
        self._chain = hashlib.sha256()
        self._short: list[bytes] = []

    def update(self, sample: Sample) -> None:
        """Take in the next sample."""
        digest = sample_digest(sample)
        self._chain.update(digest)
        self._short.append(digest[:8])

    def watch(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples, each taken in before it is handed on."""
        for sample in samples:
            self.update(sample)
            yield sample

    @property
    def count(self) -> int:
        """Number of samples taken in."""
        return len(self._short)

    @property
    def digests(self) -> SampleDigests:
        """Which samples were taken in."""
        return SampleDigests.of(self._short)

    def hexdigest(self) -> str:
        """The fingerprint of all samples taken in so far, 64 hexadecimal digits."""
        return self._chain.hexdigest()
