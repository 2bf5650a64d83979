"""How far the outputs of a trial form are from the float model's, and how sure a difference of two forms is.

With Σ r² and Σ e² the sums of squares of an output and of its error, over all samples,

    SQNR = 10·log10(Σ r² / Σ e²) dB of the worst float output,

and the gain of one form over another is the difference of their SQNR on the same samples. Its standard error is
the jackknife's over samples (Efron 1982): with g_i the gain without sample i, se² = (n − 1)/n · Σ (g_i − ḡ)².
Models with few outputs need many samples to tell forms apart; the standard error says whether they were enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.core.metrics import measure
from quantcli.data.base import Sample
from quantcli.runtime.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFidelity:
    """Sums of squares of every float output for every sample.

    Attributes:
        signal: float64 (outputs, samples), Σ r².
        noise: The same of the errors; inf where an element is finite on one side only.
    """

    signal: np.ndarray
    noise: np.ndarray

    @property
    def sqnr(self) -> float:
        """Of the worst output in dB; inf where nothing differs."""
        return float(_worst(self.signal.sum(axis=1), self.noise.sum(axis=1)))

    @property
    def outputs(self) -> np.ndarray:
        """float64 (outputs,): the SQNR of each output in dB."""
        return _sqnr(self.signal.sum(axis=1), self.noise.sum(axis=1))

    def gain_over(self, other: TrialFidelity) -> tuple[float, float]:
        """Difference of the SQNR in dB, and its standard error; of forms run on the same samples."""
        mine, theirs = self.sqnr, other.sqnr
        count = self.signal.shape[1]
        if mine == theirs or not np.isfinite([mine, theirs]).all() or count < 2:
            return (0.0 if mine == theirs else mine - theirs), 0.0
        without = self._without_each() - other._without_each()
        return mine - theirs, float(np.sqrt((count - 1) * np.var(without)))

    def _without_each(self) -> np.ndarray:
        """float64 (samples,): the SQNR that leaving out each sample would give."""
        signal = self.signal.sum(axis=1, keepdims=True) - self.signal
        noise = self.noise.sum(axis=1, keepdims=True) - self.noise
        return _worst(np.maximum(signal, _TINY), np.maximum(noise, _TINY))


_TINY = np.finfo(np.float64).tiny


def _worst(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Lowest SQNR along the first axis, inf without outputs."""
    return np.asarray(_sqnr(signal, noise).min(axis=0, initial=np.inf))


def _sqnr(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """In dB, of the same shape; inf where nothing differs."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(np.where(noise == 0, np.inf, 10 * np.log10(signal / noise)))


def trial_fidelity(
    session: Session,
    samples: Sequence[Sample],
    references: Sequence[Mapping[str, np.ndarray]],
    masks: Sequence[np.ndarray] | None = None,
) -> TrialFidelity:
    """Run ``session`` and compare.

    Args:
        session: A form of the model.
        samples: Complete feeds.
        references: Outputs of the float model for the same feeds.
        masks: For each sample which positions count (bool, shape (N, T)) in outputs of shape (N, T, …); None for
            all.

    Raises:
        RuntimeFailure: R102, the form does not run.
    """
    rows: dict[str, list[tuple[float, float]]] = {}
    for number, (sample, reference) in enumerate(zip(samples, references, strict=True)):
        for name, values in session.run(sample, list(reference)).items():
            wanted = reference[name]
            if isinstance(wanted, np.ndarray) and wanted.dtype.kind == "f":
                if masks is not None and wanted.shape[: masks[number].ndim] == masks[number].shape:
                    wanted, values = wanted[masks[number]], values[masks[number]]
                sums = measure(wanted, values, None)
                error = np.inf if sums.nonfinite_differ else sums.error_squared
                rows.setdefault(name, []).append((sums.ref_squared, error))
    table = np.array([rows[name] for name in sorted(rows)], np.float64).reshape(len(rows), len(samples), 2)
    return TrialFidelity(signal=table[..., 0], noise=table[..., 1])
