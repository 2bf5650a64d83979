"""Which rows of the samples a layer is fitted on, and which judge the fit.

Of eight or more samples every fourth is held out; of fewer, every fourth row. Each sample gives as many rows as
make the wanted number altogether, and at least 2.5·K to fit on where the samples have that many: with 1000 rows
for K = 1536 the second moment is so uncertain that GPTQ loses to rounding to nearest (measured on a text encoder).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.algorithms.layer_form import LayerForm
from quantcli.algorithms.unfold import rows

_FOLDS = 4
_SAMPLES_FOR_WHOLE_FOLDS = 8
_ROWS_PER_INPUT = 2.5


@dataclass(frozen=True, slots=True)
class Pair:
    """The input of a layer for one sample.

    Attributes:
        x: float32, in the float graph.
        x_hat: Same shape, in the graph quantized so far.
        keep: bool, shape of leading axes of ``x``: rows of a product that count; None for all.
    """

    x: np.ndarray
    x_hat: np.ndarray
    keep: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRows:
    """Rows of samples, in two parts; made anew at each reading, so that one sample is in memory at a time.

    Attributes:
        form: The layer.
        pairs: Samples.
        wanted: Rows wanted to fit on.
    """

    form: LayerForm
    pairs: Sequence[Pair]
    wanted: int

    @property
    def _by_sample(self) -> bool:
        return len(self.pairs) >= _SAMPLES_FOR_WHOLE_FOLDS

    @property
    def limit(self) -> int:
        """Most rows of a sample."""
        count = len(self.pairs)
        fitting = count - count // _FOLDS if self._by_sample else count * (_FOLDS - 1) / _FOLDS
        return math.ceil(max(self.wanted, _ROWS_PER_INPUT * self.form.inputs) / max(fitting, 1))

    def fitting(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(x, x̂), each (G, R, K) float32, of the rows to fit on."""
        return self._part(held_out=False)

    def held_out(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(x, x̂), each (G, R, K) float32, of the rows that judge."""
        return self._part(held_out=True)

    def _part(self, *, held_out: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        seen = 0
        for number, pair in enumerate(self.pairs):
            if self._by_sample and (number % _FOLDS == _FOLDS - 1) != held_out:
                continue
            first = number * self.limit
            x = rows(pair.x, self.form, self.limit, keep=pair.keep, first=first)
            x_hat = rows(pair.x_hat, self.form, self.limit, keep=pair.keep, first=first)
            if not self._by_sample:
                # Numbered through, for samples of a single row must be divided too.
                fold = (seen + np.arange(x.shape[1])) % _FOLDS
                seen += x.shape[1]
                chosen = (fold == _FOLDS - 1) == held_out
                x, x_hat = x[:, chosen], x_hat[:, chosen]
            if x.shape[1]:
                yield x, x_hat
