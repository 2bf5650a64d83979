"""The result of calibration: what was observed, of which model, on which data. No range method is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from quantcli.calibration.convergence import Convergence, RangeHistory, assess
from quantcli.calibration.trial import TrialInput
from quantcli.core import stats
from quantcli.core.stats import TensorStats
from quantcli.data.overlap import SampleDigests
from quantcli.errors import StaleCalibrationError

NO_DIGESTS = SampleDigests.of(())
"""Of no samples known by their digests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one pass over samples gives, before anybody says what the samples were.

    Attributes:
        samples: How many.
        tensors: Statistics by tensor name, in order of the names.
        history: Ranges on the way; columns in the same order.
        notes: What the user should know.
    """

    samples: int
    tensors: Mapping[str, TensorStats]
    history: RangeHistory
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationStatistics:
    """Statistics of a model's activations on some data.

    Attributes:
        model_digest: Of the model that ran; statistics fit no other.
        data_fingerprint: Of the samples, in their order; of merged statistics the sorted fingerprints of the
            parts, joined by "+".
        samples: How many samples.
        synthetic: Whether any of them were made up.
        tensors: Statistics by tensor name, in order of the names; read-only.
        history: Ranges on the way, for the verdict on convergence; columns in the same order.
        sample_digests: Which samples, for finding overlaps with other data.
        inputs: Form of the first sample, for a trial run of what is made of the model.
        notes: What the user should know.
    """

    model_digest: str
    data_fingerprint: str
    samples: int
    synthetic: bool
    tensors: Mapping[str, TensorStats]
    history: RangeHistory
    sample_digests: SampleDigests = NO_DIGESTS
    inputs: tuple[TrialInput, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tensors = {name: self.tensors[name] for name in sorted(self.tensors)}
        object.__setattr__(self, "tensors", MappingProxyType(tensors))
        if self.history.minimum.shape[1] != len(tensors):
            raise ValueError("the history and the statistics are of different tensors")

    @classmethod
    def of(
        cls,
        collected: Collected,
        *,
        model_digest: str,
        data_fingerprint: str,
        synthetic: bool,
        sample_digests: SampleDigests = NO_DIGESTS,
        inputs: tuple[TrialInput, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> CalibrationStatistics:
        """Say of which model and data ``collected`` is; ``notes`` go before its own."""
        return cls(
            model_digest=model_digest,
            data_fingerprint=data_fingerprint,
            samples=collected.samples,
            synthetic=synthetic,
            tensors=collected.tensors,
            history=collected.history,
            sample_digests=sample_digests,
            inputs=inputs,
            notes=(*notes, *collected.notes),
        )

    @property
    def convergence(self) -> Convergence:
        """Whether the ranges have settled."""
        return assess(self.history, tuple(self.tensors))

    @property
    def unusable(self) -> tuple[str, ...]:
        """Tensors that held Inf or NaN: no range covers them, so they cannot be quantized."""
        return tuple(name for name, found in self.tensors.items() if found.nonfinite)


def merge(a: CalibrationStatistics, b: CalibrationStatistics) -> CalibrationStatistics:
    """Statistics of a's samples followed by b's; a tensor keeps its channels where both have the same.

    Raises:
        StaleCalibrationError: They are of different models (K201), of different tensors (K205), or the same
            samples are in both (K206).
    """
    if a.model_digest != b.model_digest:
        raise StaleCalibrationError(
            "K201",
            f"the calibrations are of different models: {a.model_digest[:12]} and {b.model_digest[:12]}",
            hint="merge only calibrations of the same model file",
        )
    odd = sorted(set(a.tensors) ^ set(b.tensors)) or sorted(
        name for name, found in a.tensors.items() if found.dtype != b.tensors[name].dtype
    )
    if odd:
        raise StaleCalibrationError(
            "K205",
            f"the calibrations look at different tensors, among them '{odd[0]}'",
            hint="collect both with the same version of quantcli and the same options",
        )
    parts = [part for side in (a, b) for part in side.data_fingerprint.split("+")]
    twice = sorted({part for part in parts if parts.count(part) > 1})
    if twice:
        raise StaleCalibrationError(
            "K206",
            f"the samples with fingerprint {twice[0][:12]} are in both calibrations",
            hint="merge calibrations of different samples; the same ones would count twice",
        )
    return CalibrationStatistics(
        model_digest=a.model_digest,
        data_fingerprint="+".join(sorted(parts)),
        samples=a.samples + b.samples,
        synthetic=a.synthetic or b.synthetic,
        tensors={name: stats.merge(found, b.tensors[name]) for name, found in a.tensors.items()},
        history=a.history.followed_by(b.history),
        sample_digests=a.sample_digests | b.sample_digests,
        inputs=a.inputs or b.inputs,
        notes=tuple(dict.fromkeys((*a.notes, *b.notes, *_overlap_note(a, b), *_channels_note(a, b)))),
    )


def check_model(statistics: CalibrationStatistics, model_digest: str) -> None:
    """Refuse statistics of another model.

    Raises:
        StaleCalibrationError: K201.
    """
    if statistics.model_digest != model_digest:
        raise StaleCalibrationError(
            "K201",
            f"the calibration was made with another model ({statistics.model_digest[:12]}, "
            f"not {model_digest[:12]})",
            hint="calibrate this model, or convert the one that was calibrated",
        )


def _overlap_note(a: CalibrationStatistics, b: CalibrationStatistics) -> tuple[str, ...]:
    common = a.sample_digests.overlap(b.sample_digests)
    return (f"samples that are in two of the merged calibrations, and count twice: {common}",) if common else ()


def _channels_note(a: CalibrationStatistics, b: CalibrationStatistics) -> tuple[str, ...]:
    odd = [name for name, found in a.tensors.items() if not stats.same_channels(found, b.tensors[name])]
    if not odd:
        return ()
    others = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
    return (f"'{odd[0]}'{others} has no extremes of channels: not both of the merged calibrations have the same",)
