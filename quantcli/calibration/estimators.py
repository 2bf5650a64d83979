"""Range methods: from statistics to the range that is quantized. Pure functions, in one registry.

What all of them share: the result contains 0 and, 0 aside, lies inside the observed extremes. For symmetric
forms a threshold on |x| is sought, because that is what their scale follows. The methods that look at
histograms know them to be samples: a percentile finer than the sample gives the largest sampled value, not
the largest value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from quantcli.calibration.entropy import entropy_range
from quantcli.calibration.profile import Profile
from quantcli.calibration.squared_error import squared_error_range
from quantcli.core.spec import QuantSpec
from quantcli.core.stats import TensorStats
from quantcli.errors import UsageError

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A range to be quantized.

    Attributes:
        min: Lower end, at most 0.
        max: Upper end, at least 0.
        clipped_fraction: Share of the observed values outside, by whole bins of the histogram.
    """

    min: float
    max: float
    clipped_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """The number that a method takes.

    Attributes:
        name: What it is.
        default: Its value when not given.
        low: Smallest value.
        high: Largest value.
    """

    name: str
    default: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """A range method.

    Attributes:
        name: As users write it.
        summary: One line for help and docs.
        function: From statistics with at least one sample, the wanted form and the parameter (0 without one) to
            a lower and an upper bound; these may leave the observed range and may miss 0.
        parameter: The number it takes, or None.
    """

    name: str
    summary: str
    function: Callable[[TensorStats, QuantSpec, float], tuple[float, float]]
    parameter: Parameter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A range method with its parameter.

    Attributes:
        name: A key of ``ESTIMATORS``.
        parameter: Value of its parameter, None where it takes none.
    """

    name: str = "minmax"
    parameter: float | None = None

    def __str__(self) -> str:
        return self.name if self.parameter is None else f"{self.name}:{self.parameter:g}"


def estimate(stats: TensorStats, spec: QuantSpec, method: Method) -> Range:
    """The range of one tensor.

    Args:
        stats: What was observed; of no samples the range is (0, 0).
        spec: Wanted form, per tensor.
        method: How.

    Raises:
        ValueError: ``spec`` is per channel.
    """
    if spec.per_channel:
        raise ValueError("ranges of activations are per tensor")
    if not stats.samples:
        return Range(min=0.0, max=0.0, clipped_fraction=0.0)
    bounds = ESTIMATORS[method.name].function(stats, spec, method.parameter or 0.0)
    # Nothing observed is finer than float32, and rounding hides what the last bits of sums depend on.
    low, high = (float(np.float32(bound)) for bound in np.clip(bounds, -_LARGEST, _LARGEST))
    low = min(0.0, max(low, stats.minimum))
    high = max(0.0, min(high, stats.maximum))
    return Range(min=low, max=high, clipped_fraction=_outside(stats, low, high))


def parse_method(text: str) -> Method:
    """``NAME`` or ``NAME:PARAMETER``, for example "percentile:99.99".

    Raises:
        UsageError: K102.
    """
    name, colon, number = text.partition(":")
    if name not in ESTIMATORS:
        raise UsageError("K102", f"there is no range method '{name}'", hint=f"use one of {', '.join(ESTIMATORS)}")
    parameter = ESTIMATORS[name].parameter
    if parameter is None:
        if colon:
            raise UsageError("K102", f"range method '{name}' takes no parameter", hint=f"write just '{name}'")
        return Method(name=name)
    if not colon:
        return Method(name=name, parameter=parameter.default)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not parameter.low <= value <= parameter.high:
        raise UsageError(
            "K102",
            f"'{number}' is no {parameter.name} for range method '{name}'",
            hint=f"give a number from {parameter.low:g} to {parameter.high:g}; {parameter.default:g} is usual",
        )
    return Method(name=name, parameter=value)


def _minmax(stats: TensorStats, _spec: QuantSpec, _parameter: float) -> tuple[float, float]:
    """The observed extremes (Jacob et al. 2018, section 3)."""
    return stats.minimum, stats.maximum


def _capped(stats: TensorStats, spec: QuantSpec, parameter: float) -> tuple[float, float]:
    """The observed extremes, but no more than k times the mean over the samples of max |x|.

    Min-max is the best range at 8 bits, except that one unusual sample can stretch a tensor's range to many times
    what all others need. Measured (dB, whole conversions, min-max → capped at 3): mobilenetv2 19.5 → 22.9, where
    one image reaches nine times the mean; resnet56 28.9 → 28.9, vww 20.3 → 20.2 before its Softmax. A tighter cap
    is better for mobilenetv2 (23.9 at 2) and a disaster for vww (13.4). Types of 16 bits and of floats have fine
    steps for all that was seen, so that a cap would cost more than it brings.
    """
    if spec.dtype.bits > 8 or spec.dtype.floating:
        return stats.minimum, stats.maximum
    bound = parameter * stats.mean_amplitude
    return max(stats.minimum, -bound), min(stats.maximum, bound)


def _percentile(stats: TensorStats, spec: QuantSpec, parameter: float) -> tuple[float, float]:
    """Quantiles that leave out (100 − p)/2 percent of the values on each side, or 100 − p percent of |x|.

    The histogram's distribution function, linear inside bins. McKinstry et al. 2018 ("Discovering low-precision
    networks close to full-precision networks for efficient embedded inference") clip so.
    """
    if parameter == 100:
        return stats.minimum, stats.maximum
    profile = Profile.of(stats, spec)
    cut = (100 - parameter) / 100
    if profile.folded:
        return profile.mirrored(profile.quantile(1 - cut))
    return profile.quantile(cut / 2), profile.quantile(1 - cut / 2)


def _moving_average(stats: TensorStats, _spec: QuantSpec, _parameter: float) -> tuple[float, float]:
    """Moving average of each sample's extremes (Jacob et al. 2018, section 3.1); see ``core.stats``."""
    return stats.average.range


def _sigma(stats: TensorStats, _spec: QuantSpec, parameter: float) -> tuple[float, float]:
    """Mean ± k standard deviations (by Chebyshev at most 1/k² of the values lie outside)."""
    mean, spread = stats.mean, parameter * stats.std
    return mean - spread, mean + spread


def _entropy(stats: TensorStats, spec: QuantSpec, _parameter: float) -> tuple[float, float]:
    """The range whose quantized distribution tells most of the observed one; see ``calibration.entropy``."""
    return entropy_range(Profile.of(stats, spec))


def _mse(stats: TensorStats, spec: QuantSpec, _parameter: float) -> tuple[float, float]:
    """The range with the least expected squared error; see ``calibration.squared_error``."""
    return squared_error_range(Profile.of(stats, spec))


def _outside(stats: TensorStats, low: float, high: float) -> float:
    """Share of the histogram's values in bins that lie below ``low`` or above ``high`` as a whole."""
    total, edges = stats.count, stats.histogram.edges
    if not total:
        return 0.0
    outside = (edges[1:] <= low) | (edges[:-1] > high)
    return float(stats.histogram.counts[outside].sum() / total)


_ALL = (
    Estimator(
        name="capped",
        summary="Min-max, but no more than 3 times the mean over the samples of the largest |x|: capped:3.",
        function=_capped,
        parameter=Parameter(name="multiple of the mean amplitude", default=3.0, low=0.1, high=1000.0),
    ),
    Estimator(name="minmax", summary="The smallest and the largest value seen.", function=_minmax),
    Estimator(
        name="percentile",
        summary="Leaves out the outermost values: percentile:99.99 keeps 99.99 % of them.",
        function=_percentile,
        parameter=Parameter(name="percentage", default=99.999, low=50.0, high=100.0),
    ),
    Estimator(
        name="entropy",
        summary="Least Kullback-Leibler divergence between values and quantized values.",
        function=_entropy,
    ),
    Estimator(name="mse", summary="Least mean squared error of rounding and clipping.", function=_mse),
    Estimator(
        name="moving-average",
        summary="Moving average of each sample's smallest and largest value.",
        function=_moving_average,
    ),
    Estimator(
        name="sigma",
        summary="Mean plus and minus some standard deviations: sigma:8.",
        function=_sigma,
        parameter=Parameter(name="number of standard deviations", default=8.0, low=0.1, high=1000.0),
    ),
)

ESTIMATORS: Mapping[str, Estimator] = MappingProxyType({estimator.name: estimator for estimator in _ALL})
"""Range methods by name, in the order of the docs."""
