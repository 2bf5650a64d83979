"""Proportions counted over samples that may hold many trials each.

A classifier gives one trial per sample; a segmentation gives 66 000 positions per image, which rise and fall
together. Treating them as independent would make every interval absurdly narrow, so the number of
*effective* trials is estimated from the spread between samples (Kish 1965, "Survey Sampling": the variance
of a ratio over clusters; design effect = that variance over the variance of independent trials). Where
each sample holds one trial at most, trials are taken as independent.

All sums are integers, so merging is exact and its order does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quantcli.core.intervals import CONFIDENCE, paired_difference, proportion


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSums:
    """Sums from which a proportion and its interval follow.

    With h_i hits of n_i trials in sample i:

    Attributes:
        samples: Samples with at least one trial.
        trials: Σ n_i.
        hits: Σ h_i.
        trials_squared: Σ n_i².
        hits_squared: Σ h_i².
        cross: Σ h_i·n_i.
    """

    samples: int = 0
    trials: int = 0
    hits: int = 0
    trials_squared: int = 0
    hits_squared: int = 0
    cross: int = 0

    @property
    def rate(self) -> float | None:
        """Hits per trial; None without trials."""
        return self.hits / self.trials if self.trials else None

    @property
    def effective_trials(self) -> float:
        """Independent trials that would give the same variance; at most ``trials``, 0 without trials."""
        if self.trials == 0 or self.trials_squared == self.trials:
            return float(self.trials)
        if self.samples < 2 or self.hits in (0, self.trials):
            return float(self.samples)
        rate = self.hits / self.trials
        spread = self.hits_squared - 2 * rate * self.cross + rate * rate * self.trials_squared
        variance = self.samples / (self.samples - 1) * spread / self.trials**2
        return _clipped(rate * (1 - rate), variance, self.trials)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
        """Interval over the effective trials (``intervals.proportion``); None without trials."""
        if self.trials == 0:
            return None
        effective = self.effective_trials
        return proportion(min(effective, self.hits / self.trials * effective), effective, confidence)


def count_rate(hits: int, trials: int) -> RateSums:
    """Sums of one sample; empty where it holds no trials."""
    if trials == 0:
        return RateSums()
    return RateSums(
        samples=1,
        trials=trials,
        hits=hits,
        trials_squared=trials * trials,
        hits_squared=hits * hits,
        cross=hits * trials,
    )


def merge_rates(a: RateSums, b: RateSums) -> RateSums:
    """The sums of both sets of samples."""
    return RateSums(
        samples=a.samples + b.samples,
        trials=a.trials + b.trials,
        hits=a.hits + b.hits,
        trials_squared=a.trials_squared + b.trials_squared,
        hits_squared=a.hits_squared + b.hits_squared,
        cross=a.cross + b.cross,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedSums:
    """Sums from which the difference of two proportions over the same trials follows.

    Attributes:
        first: Hits of the first measurement.
        second: Hits of the second; the same samples and trials.
        lost: Trials hit by the first only.
        gained: Trials hit by the second only.
        drop_squared: Σ d_i² with d_i = hits of the first − hits of the second in sample i.
        drop_cross: Σ d_i·n_i.
    """

    first: RateSums = field(default_factory=RateSums)
    second: RateSums = field(default_factory=RateSums)
    lost: int = 0
    gained: int = 0
    drop_squared: int = 0
    drop_cross: int = 0

    @property
    def drop(self) -> float | None:
        """Rate of the first − rate of the second; None without trials."""
        return (self.lost - self.gained) / self.first.trials if self.first.trials else None

    @property
    def effective_trials(self) -> float:
        """Independent trials that would give the drop the same variance."""
        n, k = self.first.trials, self.first.samples
        if n == 0 or self.first.trials_squared == n:
            return float(n)
        drop = (self.lost - self.gained) / n
        simple = self.lost + self.gained - (self.lost - self.gained) ** 2 / n
        if k < 2 or simple <= 0:
            return float(k)
        spread = self.drop_squared - 2 * drop * self.drop_cross + drop * drop * self.first.trials_squared
        return _clipped(simple / n, k / (k - 1) * spread / n**2, n)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
        """Interval of the drop; None without trials."""
        n = self.first.trials
        if n == 0:
            return None
        share = self.effective_trials / n
        return paired_difference(self.lost * share, self.gained * share, n * share, confidence)


def count_paired(first_only: int, second_only: int, both: int, trials: int) -> PairedSums:
    """Sums of one sample."""
    drop = first_only - second_only
    return PairedSums(
        first=count_rate(both + first_only, trials),
        second=count_rate(both + second_only, trials),
        lost=first_only,
        gained=second_only,
        drop_squared=drop * drop,
        drop_cross=drop * trials,
    )


def merge_paired(a: PairedSums, b: PairedSums) -> PairedSums:
    """The sums of both sets of samples."""
    return PairedSums(
        first=merge_rates(a.first, b.first),
        second=merge_rates(a.second, b.second),
        lost=a.lost + b.lost,
        gained=a.gained + b.gained,
        drop_squared=a.drop_squared + b.drop_squared,
        drop_cross=a.drop_cross + b.drop_cross,
    )


def _clipped(single: float, variance: float, trials: int) -> float:
    """Variance of one trial over variance of the mean, between 1 and ``trials``."""
    if variance * trials <= single:  # samples differ no more than independent trials would make them
        return float(trials)
    return max(1.0, single / variance)
