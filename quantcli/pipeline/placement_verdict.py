"""What placement by measurement found, as values and in words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from quantcli.quantize.choices import Choices
from quantcli.runtime.bench import Ratio

FLOAT_OPTION = "--float-if-faster"
"""What a user gives to get the float model where no integer form is faster."""

_WORDS = {
    "silu=integer": "x·sigmoid(x) as two integer kernels",
    "residual_norm=add": "Add in front of LayerNormalization",
    "average_pool=convolution": "AveragePool as a depthwise convolution",
    "stem=integer": "the stem in integers",
    "stem=float": "the first convolution in float",
    "grouped=integer": "grouped convolutions in integers",
    "concat=float": "Concat in float",
    "pools=float": "pools in float",
    "gates=float": "Sigmoid and its Mul in float",
    "squeeze_excite=float": "squeeze-excite blocks in float",
    "residual=float": "sums of activations in float",
    "last_layer=float": "the last layer in float",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementMeasurement:
    """One alternative that was timed.

    Attributes:
        field: Field of ``Choices`` that it changes.
        value: Its value there.
        choices: All choices of the form.
        to_best: Its time relative to the best form so far.
        to_float: Its time relative to the float model.
        sqnr: Its lowest output SQNR in dB, as ``pipeline.placement`` says.
        sqnr_of_best: The same of the best form so far.
        rounds: Rounds timed.
        adopted: Whether it took the place of the best.
    """

    field: str
    value: str
    choices: Choices
    to_best: Ratio
    to_float: Ratio
    sqnr: float
    sqnr_of_best: float
    rounds: int
    adopted: bool

    @property
    def words(self) -> str:
        """What it is, in words."""
        return _WORDS[f"{self.field}={self.value}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementVerdict:
    """Which way to take.

    Attributes:
        choices: The fastest that is not less accurate than the start.
        measurements: Every alternative that was timed, in order.
        start_ratio: Time of the form by the static rules relative to the float model; None if nothing was timed.
        best_ratio: The same of the form with ``choices``.
        start_sqnr: Lowest output SQNR in dB of the form by the static rules.
        best_sqnr: The same of the form with ``choices``.
        notes: What the user should know: what was chosen, what was not tried.
    """

    choices: Choices
    measurements: tuple[PlacementMeasurement, ...] = ()
    start_ratio: Ratio | None = None
    best_ratio: Ratio | None = None
    start_sqnr: float | None = None
    best_sqnr: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def float_is_faster(self) -> bool:
        """Whether even the best integer form is surely slower than the float model."""
        return self.best_ratio is not None and self.best_ratio.low > 1

    @property
    def float_choices(self) -> Choices:
        """What to plan with where the user wants the float model if it is faster."""
        return replace(self.choices, whole="float") if self.float_is_faster else self.choices

    def sentences(self, *, float_wanted: bool = False) -> tuple[str, ...]:
        """The notes, and plainly whether the float model is faster.

        Args:
            float_wanted: Whether the user asked for the float model in that case.
        """
        if not self.float_is_faster or self.best_ratio is None:
            return self.notes
        ratio = self.best_ratio
        found = (
            f"no integer form is faster than float here: the best takes {ratio.ratio:.2f} × as long "
            f"({ratio.low:.2f} to {ratio.high:.2f})"
        )
        advice = "the model is left in float" if float_wanted else f"{FLOAT_OPTION} leaves the model in float"
        return (*self.notes, f"{found}; {advice}")


def adopted_note(found: PlacementMeasurement) -> str:
    """What was chosen and what for."""
    return (
        f"placement: {found.words} ({found.to_best.ratio:.2f} × the time, "
        f"{found.sqnr_of_best:.1f} → {found.sqnr:.1f} dB in the trial)"
    )
