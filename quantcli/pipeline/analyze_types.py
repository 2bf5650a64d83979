"""What goes into ``quantcli analyze``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from quantcli.pipeline.types import ConvertRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeOptions:
    """How to analyze.

    Attributes:
        probe_samples: Samples on which errors are measured, at most.
        target_sqnr: SQNR in dB that the exclude block is to reach; None for the lines that are worth it.
        latency: Time nodes, for the price of lines.
    """

    probe_samples: int = 64
    target_sqnr: float | None = None
    latency: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeRequest:
    """``quantcli analyze``.

    Attributes:
        conversion: How the model is converted; its evaluation samples are those that errors are measured on
            (without any, the calibration samples).
        options: How to analyze.
        output: Recipe file with the exclude block; None for none.
        reports: Report files (.json, .md).
        command: The command line as typed; no absolute paths.
        overwrite: Replace existing files.
    """

    conversion: ConvertRequest
    options: AnalyzeOptions = field(default_factory=AnalyzeOptions)
    output: Path | None = None
    reports: tuple[Path, ...] = ()
    command: str = ""
    overwrite: bool = False
