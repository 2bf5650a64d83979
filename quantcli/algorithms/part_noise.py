"""What parts of a quantization add to the error of an output, and what goes away without some of them.

From runs of ``graph.noise_probe`` on samples s there are a_sp = ⟨e_s, e_sp⟩ and u_sp = ⟨v_s, e_sp⟩ with random
signs v. With E = Σ_s ‖e_s‖² the error energy and F a set of parts,

    Σ_s ‖e_s − Σ_{p∈F} e_sp‖² = E − 2·Σ_{p∈F} Σ_s a_sp + ‖e_F‖²,    ‖e_F‖² ≈ Σ_s (Σ_{p∈F} u_sp)²

is what is left when F is not quantized. It is exact to first order, errors that are correlated or that make up for
one another included: a layer whose bias was corrected for the errors before it has a negative share. The shares
Σ_s a_sp / E of all parts add up to 1 as far as the first order holds, which is a check.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantcli.core.rank_correlation import rank_correlation

SAME_SEED = 2
"""Consecutive samples that share a v, so that errors which are the same for all samples can be told."""

_LARGEST_BASIS = 256
"""Elements of an output up to which the v of one turn are orthogonal."""

_LEAST_LEFT = 1e-3
"""Part of the error that is left at least: predictions below are beyond what the first order can say."""


@dataclass(frozen=True, kw_only=True)
class PartNoise:
    """Figures of one output.

    Attributes:
        output: Its name.
        signal: Σ‖y‖² of the float model over the samples.
        error: E, measured with the quantized model.
        keys: Parts in the order of the columns.
        along: float64 (samples, parts), a.
        seeds: float64 (samples, parts), u.
        linear: Parts whose figures come from gradients; the others were run one by one.
    """

    output: str
    signal: float
    error: float
    keys: tuple[str, ...]
    along: np.ndarray
    seeds: np.ndarray
    linear: int

    def columns(self, parts: Collection[str]) -> list[int]:
        """Places of the parts that are known."""
        return [place for place, key in enumerate(self.keys) if key in parts]

    def removed(self, parts: Collection[str]) -> float:
        """Error energy that goes away without ``parts``."""
        chosen = self.columns(parts)
        return float(2 * self.along[:, chosen].sum() - self.alone(parts))

    def alone(self, parts: Collection[str]) -> float:
        """‖e_F‖²: error energy of ``parts`` alone.

        What chance does to the estimate of a set that makes up most of the error, it does to that of all parts
        together, which is known otherwise: that share of the deviation is taken off.
        """
        every = float(np.square(self.seeds.sum(axis=1)).sum())
        found = float(np.square(self.seeds[:, self.columns(parts)].sum(axis=1)).sum())
        whole = float(self.along.sum())
        if every == 0 or whole <= 0:
            return found
        return found * (1 + min(found / every, 1.0) * (whole / every - 1))

    def agreement(self, sets: Sequence[Collection[str]]) -> float | None:
        """Rank correlation of what goes away without each of ``sets``, by every other sample and by the rest."""
        halves = []
        for start in range(SAME_SEED):  # both halves have the same seeds
            part = replace(self, along=self.along[start::SAME_SEED], seeds=self.seeds[start::SAME_SEED])
            halves.append(np.array([part.removed(parts) for parts in sets]))
        return rank_correlation(*halves)

    def left(self, parts: Collection[str]) -> float:
        """Noise to signal without ``parts``.

        At least half of what the other parts make by themselves: where little is left, the difference above is
        mostly chance.
        """
        others = [key for key in self.keys if key not in parts]
        every = self.alone(self.keys)
        least = self.error * self.alone(others) / every / 2 if every > 0 else 0.0
        rest = max(self.error - self.removed(parts), least, _LEAST_LEFT * self.error)
        return rest / self.signal if self.signal > 0 else math.inf

    def total(self) -> float:
        """Noise to signal as the sum of all shares predicts it."""
        return max(float(self.along.sum()), 0.0) / self.signal if self.signal > 0 else math.inf

    def constant_share(self, parts: Collection[str]) -> float:
        """Share of ‖e_F‖² that is the same for all samples, 0 to 1.

        Two samples with the same v and the mean error m have E[u₁·u₂] = ‖m‖².
        """
        u = self.seeds[:, self.columns(parts)].sum(axis=1)
        first, second = u[: len(u) // 2 * 2 : 2], u[1::2]
        total = float(np.square(first).sum() + np.square(second).sum())
        return min(max(2 * float((first * second).sum()) / total, 0.0), 1.0) if total > 0 else 0.0


def make_seeds(samples: int, shape: tuple[int, ...]) -> np.ndarray:
    """float32 (samples / 2, *shape): the v, with E[v·vᵀ] = 1.

    For small outputs they are turns of √n times a random orthonormal basis, so that the mean of ⟨v, e⟩² over a
    turn is ‖e‖² exactly where e does not change; else signs.
    """
    rng = np.random.default_rng(0)
    count, size = max(math.ceil(samples / SAME_SEED), 1), math.prod(shape)
    if size > _LARGEST_BASIS:
        return rng.choice(np.array([-1, 1], np.float32), (count, *shape))
    turns = [np.linalg.qr(rng.normal(0, 1, (size, size)))[0] for _ in range(math.ceil(count / max(size, 1)))]
    basis = np.concatenate(turns)[:count] * math.sqrt(size)
    return basis.astype(np.float32).reshape(count, *shape)


def decibels(noise: float) -> float:
    """SQNR in dB of a noise to signal ratio; inf for none."""
    return -10 * math.log10(noise) if noise > 0 else math.inf


def lost_parts(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """Parts of one plan that another one has not.

    Args:
        before: Part → its sharing group, "" for constants.
        after: The same of the other plan.

    A tensor that is rounded later instead (behind a pool, say) is not lost: one of its group has come.
    """
    come = {group for key, group in after.items() if key not in before and group}
    return tuple(key for key, group in before.items() if key not in after and group not in come)
