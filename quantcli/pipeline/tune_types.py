"""What goes into tuning and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantcli.pipeline.types import ConvertRequest
from quantcli.report.schema import GateResult, Report

Price = Literal["latency", "layers"]
"""What is to be small: the time of the result, or the number of its float layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """How to search.

    Attributes:
        gates: Gate expressions that the result has to pass.
        minimize: What a tensor in float costs.
        probe_samples: Evaluation samples on which the noise of tensors is measured.
        timed_pairs: Pairs of timed runs for each real run; 0 for none.
        survey: Measure the noise of tensors also where nothing has to be left in float.
    """

    gates: tuple[str, ...]
    minimize: Price = "latency"
    probe_samples: int = 16
    timed_pairs: int = 20
    survey: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest:
    """``quantcli tune``.

    Attributes:
        conversion: How the model is converted. Its recipe is where the search starts, its evaluation samples are
            those that gates are held against (without any, the calibration samples).
        options: What to reach and how.
        labels: File of labels of the samples that gates are held against.
        labels_output: Output that the labels belong to; None to choose.
        output: The recipe file; None for MODEL.recipe.toml beside the model.
        state: File that holds what was measured; None for RECIPE.state.json beside the recipe.
        overwrite: Replace an existing recipe.
    """

    conversion: ConvertRequest
    options: TuneOptions
    labels: Path | None = None
    labels_output: str | None = None
    output: Path | None = None
    state: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRow:
    """One set of float tensors.

    Attributes:
        tensors: Tensors in float; for each its sharing group's first member.
        float_layers: Layers that they make float.
        predicted_sqnr: Of the worst output in dB, with the constant that the first real run gave.
        predicted_latency: Time relative to float from the profile; None without one.
        measured_sqnr: Of the worst output in a real run, dB; None where there was none.
        latency: Measured time relative to float; None where it was not timed.
        reached: Whether the real run passed the gates on fidelity; None where there was none.
        chosen: Whether this is the result.
        dominated: Whether another row has no more noise and costs no more, and one of both is better.
    """

    tensors: tuple[str, ...]
    float_layers: int
    predicted_sqnr: float
    predicted_latency: float | None = None
    measured_sqnr: float | None = None
    latency: float | None = None
    reached: bool | None = None
    chosen: bool = False
    dominated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What the search found.

    Attributes:
        tensors: Tensors to leave in float.
        reached: Whether all gates hold with them; else they are the best that was found.
        rows: Everything that was looked at, from the fewest tensors in float to the most; none without survey.
        gates: The gates' results.
        report: Comparison of the result with the float model.
        noise: Sharing group → SQNR in dB of the worst output with that group alone quantized.
        weights_noise: The same with all weights alone; None where it was not measured.
        runs: Models that were made and measured, earlier ones in the state file included.
        notes: Things the user should know.
    """

    tensors: tuple[str, ...]
    reached: bool
    rows: tuple[TuneRow, ...]
    gates: tuple[GateResult, ...]
    report: Report
    noise: Mapping[str, float]
    weights_noise: float | None
    runs: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What tuning did.

    Attributes:
        output: The recipe file.
        state: The file of measurements.
        found: What the search found.
        notes: Things the user should know.
    """

    output: Path
    state: Path
    found: Fallback
    notes: tuple[str, ...] = ()
