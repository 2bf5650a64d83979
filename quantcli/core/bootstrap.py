"""Confidence intervals of any statistic of independent samples, by drawing the samples again.

The statistic is a function of how often each sample counts, so what it needs of the samples (their scores, their
confusion matrices, their matched boxes) is stored once, and both models are drawn with the same counts: their
difference is *paired*.

* **BCa** (Efron 1987, "Better bootstrap confidence intervals"; Efron and Tibshirani 1993, chapter 14): percentiles
  of the replicates, moved by the bias z0 = Φ⁻¹(share of replicates below the estimate) and the acceleration
  a = Σu³ / (6·(Σu²)^1.5), u the influence of each sample from the jackknife. Where a statistic is skewed, as
  metrics near their best value are, plain percentiles err on one side.
* **Expanded percentiles** (Hesterberg 2015, "What teachers should know about the bootstrap", section 5.3): the
  tail α/2 becomes Φ(−sqrt(n/(n−1))·t(α/2, n−1)), since replicates of n samples spread less than the statistic
  does.
* **Rare events.** No resampling can show what no sample had: if 50 samples are all unchanged, every replicate
  says "no change", and yet one sample in 14 might change (Wilson's bound for 0 of 50). So the interval is also
  held to what is known of a share: with p the jackknife's pseudo-values, D the largest distance of one from
  their median, and k = (Σ|p|)²/Σp² the number of samples that make up that distance, on either side, the mean
  may lie up to D·wilson(k, n) from the median. This counts where k is below ``ENOUGH`` (few samples say
  anything) and is dropped where more contribute.

* **Means over classes** (mAP, mIoU). When images are drawn again, a class that occurs in m of them shows
  (m − 1)/m of its variance, and none where m = 1. If classes vary alike, the standard error is too small by the
  factor ``hidden_spread``, sqrt(Σ 1/m / Σ (m − 1)/m²), and the interval is widened by it. What this cannot mend:
  with few images of a class its precision is overestimated, so that mAP itself looks better than it is.

How often a bound is wrong is tested by simulation: about as often as stated, for symmetric and bounded scores
and for rare events from 50 samples on; up to twice as often on the side of the long tail where scores are very
skewed.

Invariant: the same counts, the same interval; the generator is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from quantcli.core.intervals import CONFIDENCE, normal_quantile, wilson

REPLICATES = 2000
"""Times that samples are drawn: each tail of a 95 % interval holds 50 replicates."""

GROUPS = 200
"""Most groups that the jackknife leaves out in turn."""

ENOUGH = 3.0
"""Samples that must contribute to a statistic before replicates alone are believed."""

FEWEST = 6
"""Samples below which replicates say nothing."""

MOST_HIDDEN = 10.0
"""Most that the interval of a mean over classes is widened: enough to decide nothing."""

_BLOCK = 1 << 22
"""Counts drawn at once: bounds the memory."""

_NORMAL = NormalDist()

Statistic = Callable[[np.ndarray], np.ndarray]
"""From counts, int64 (draws, samples), to values, float64 (draws, statistics)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A statistic with its interval.

    Attributes:
        value: Of the samples as they are.
        low: Lower bound.
        high: Upper bound.
    """

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Statistic,
    samples: int,
    rng: np.random.Generator,
    *,
    confidence: float = CONFIDENCE,
    replicates: int = REPLICATES,
    reach: float = 1.0,
    limits: Sequence[tuple[float, float]] = (),
    widen: float = 1.0,
) -> tuple[Interval, ...]:
    """Intervals of several statistics of the same samples.

    Args:
        statistic: See ``Statistic``. A sum over samples counts each as often as its count says.
        samples: How many independent samples there are, at least 1.
        rng: Draws the samples.
        confidence: Two-sided.
        replicates: Times that samples are drawn.
        reach: How far one sample could move the statistic if all were like it, where no sample differs from any
            other: 1 for metrics between 0 and 1.
        limits: Lowest and highest value that each statistic can have; empty for none.
        widen: Factor for the distance of either bound from the value (see ``hidden_spread``).

    Returns:
        One interval for each column of the statistic.

    Raises:
        ValueError: There are no samples.
    """
    if samples < 1:
        raise ValueError("there are no samples to draw from")
    values = statistic(np.ones((1, samples), np.int64))[0]
    left_out, groups = _jackknife(statistic, samples)
    drawn = _replicates(statistic, samples, replicates, rng) if samples >= FEWEST else None
    found = []
    for column, value in enumerate(values.tolist()):
        pseudo = value + (groups - 1) * (value - left_out[:, column]) if groups > 1 else np.array([value])
        enough = ENOUGH if drawn is not None else math.inf
        low, high = _rare(pseudo, reach * groups / samples, enough, confidence)
        if drawn is not None:
            bca = _bca(value, drawn[:, column], pseudo - value, samples, confidence)
            # Added to the bound, so that a factor of 1 leaves it as it is, to the last bit.
            low = min(low, bca[0] - (widen - 1) * (value - bca[0]))
            high = max(high, bca[1] + (widen - 1) * (bca[1] - value))
        least, most = limits[column] if limits else (-math.inf, math.inf)
        found.append(Interval(value=value, low=max(least, min(low, value)), high=min(most, max(high, value))))
    return tuple(found)


def hidden_spread(images: Sequence[int]) -> float:
    """How much wider the interval of a mean over classes has to be than replicates say.

    Args:
        images: In how many images each class occurs; those of 0 have no part.

    Returns:
        At least 1, at most ``MOST_HIDDEN``.
    """
    counts = [count for count in images if count]
    real = math.fsum(1 / count for count in counts)
    shown = math.fsum((count - 1) / count**2 for count in counts)
    return MOST_HIDDEN if real > MOST_HIDDEN**2 * shown else math.sqrt(real / shown) if shown else 1.0


def draw_counts(samples: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each sample is drawn: int64 (draws, samples), each row sums to ``samples``."""
    chosen = rng.integers(samples, size=(draws, samples))
    flat = (chosen + np.arange(draws)[:, None] * samples).reshape(-1)
    return np.bincount(flat, minlength=draws * samples).reshape(draws, samples)


def _replicates(statistic: Statistic, samples: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    step = max(1, _BLOCK // samples)
    parts = [
        statistic(draw_counts(samples, min(step, replicates - start), rng)) for start in range(0, replicates, step)
    ]
    return np.concatenate(parts)


def _jackknife(statistic: Statistic, samples: int) -> tuple[np.ndarray, int]:
    """The statistic without each group of neighbours in turn, float64 (groups, statistics), and their number."""
    groups = min(samples, GROUPS)
    if groups < 2:
        return np.empty((0, 1)), groups
    member = np.arange(samples) * groups // samples
    step = max(1, _BLOCK // samples)
    parts = [
        statistic((member[None, :] != np.arange(start, min(start + step, groups))[:, None]).astype(np.int64))
        for start in range(0, groups, step)
    ]
    return np.concatenate(parts), groups


def _bca(
    value: float, drawn: np.ndarray, influence: np.ndarray, samples: int, confidence: float
) -> tuple[float, float]:
    """The BCa interval with expanded percentiles."""
    drawn = np.sort(drawn[np.isfinite(drawn)])
    if not len(drawn):
        return value, value
    below = (np.sum(drawn < value) + 0.5 * np.sum(drawn == value)) / len(drawn)
    edge = 0.5 / len(drawn)
    bias = _NORMAL.inv_cdf(min(max(float(below), edge), 1 - edge))
    influence = influence - influence.mean()
    square = float(np.sum(influence**2))
    acceleration = float(np.sum(influence**3)) / (6 * square**1.5) if square > 0 else 0.0
    tail = math.sqrt(samples / (samples - 1)) * student_quantile(samples - 1, confidence)
    bounds = []
    for z in (-tail, tail):
        moved = bias + z
        room = 1 - acceleration * moved
        share = _NORMAL.cdf(bias + moved / room) if room > 0 else float(z > 0)
        bounds.append(_percentile(drawn, share))
    return bounds[0], bounds[1]


def _percentile(ordered: np.ndarray, share: float) -> float:
    """The share of B values is the value at rank share·(B + 1), between neighbours in proportion."""
    rank = min(max(share * (len(ordered) + 1) - 1, 0.0), len(ordered) - 1.0)
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (rank - low) * (ordered[high] - ordered[low]))


def _rare(pseudo: np.ndarray, reach: float, enough: float, confidence: float) -> tuple[float, float]:
    """What is known of the mean where few samples say anything; an empty interval (inf, −inf) where many do."""
    if not np.isfinite(pseudo).all():
        return math.inf, -math.inf
    middle = float(np.median(pseudo))
    away = pseudo - middle
    scale = float(np.abs(away).max())
    if scale <= 1e-12 * max(1.0, abs(middle)):  # rounding, no difference
        away, scale = np.zeros_like(away), reach
    if _contributors(away) >= enough:
        return math.inf, -math.inf
    count = len(pseudo)
    up = wilson(min(_contributors(away.clip(min=0)), count), count, confidence)[1]
    down = wilson(min(_contributors(away.clip(max=0)), count), count, confidence)[1]
    return middle - scale * down, middle + scale * up


def _contributors(away: np.ndarray) -> float:
    """How many samples make up the distance: k where k of them have the same one, and the others none."""
    square = float(np.sum(away**2))
    return float(np.sum(np.abs(away))) ** 2 / square if square > 0 else 0.0


def student_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t, by the expansion in 1/freedom about the normal one.

    Abramowitz and Stegun 1964, 26.7.5; within 0.5 % from 5 degrees of freedom on at 95 %.

    Args:
        freedom: Degrees of freedom, at least 1.
        confidence: Two-sided.
    """
    z = normal_quantile(confidence)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, start=1))
