"""What all renderings of an analysis say in the same words: cells of its tables, and its exclude block."""

from __future__ import annotations

import shlex

from quantcli.report import format as fmt
from quantcli.report.analysis import Analysis, LayerSensitivity

STEP_HEAD = ("line", "gain", "predicted", "measured", "ms", "size")
"""Heads of the columns of ``step_cells``."""

HEAD = ("layer", "op", "gain", "share", "alone", "cause", "ms", "size")
"""Heads of the columns of ``cells``."""

REMEDY_HEAD = ("layer", "evidence", "remedy")
"""Heads of the columns of ``remedy_cells``."""


def cells(layer: LayerSensitivity, width: int = 40) -> tuple[str, ...]:
    """One row of the ranked table."""
    return (
        fmt.name(layer.node, width),
        fmt.name(layer.op, 24),
        gain(layer.gain),
        f"{100 * layer.share + 0.0:.1f} %",
        fmt.decibel(layer.sqnr),
        layer.cause,
        milliseconds(layer.cost_ms),
        f"+{fmt.size(layer.cost_bytes)}" if layer.cost_bytes else fmt.MISSING,
    )


def remedy_cells(layer: LayerSensitivity) -> tuple[str, ...]:
    """One row of the table of remedies."""
    return fmt.name(layer.node, 40), fmt.name(layer.evidence, 200), fmt.name(layer.remedy, 200)


def gain(value: float) -> str:
    """A difference in dB with its sign."""
    return f"{value + 0.0:+.2f} dB"


def milliseconds(value: float | None) -> str:
    """A difference in time with its sign."""
    return "not timed" if value is None else f"{value + 0.0:+.3f} ms"


def step_cells(analysis: Analysis) -> tuple[tuple[str, ...], ...]:
    """One row for every line of the exclude block: what it gains and costs on top of those above."""
    before = [analysis.sqnr, *(step.predicted for step in analysis.exclude)]
    return tuple(
        (
            fmt.name(step.selector, 40),
            gain(step.predicted - now),
            fmt.decibel(step.predicted),
            fmt.decibel(step.measured),
            milliseconds(step.cost_ms),
            f"+{fmt.size(step.cost_bytes)}" if step.cost_bytes else fmt.MISSING,
        )
        for step, now in zip(analysis.exclude, before, strict=False)
    )


def block(analysis: Analysis) -> tuple[str, ...]:
    """The exclude block for a shell, one option on a line; a selector is quoted, and never broken."""
    words = [f"--exclude {shlex.quote(fmt.name(step.selector, 10_000))}" for step in analysis.exclude]
    return tuple(f"{word} \\" if number < len(words) else word for number, word in enumerate(words, 1))


def summary(analysis: Analysis) -> str:
    """The error as a whole, and how far predictions can be trusted."""
    text = f"SQNR {fmt.decibel(analysis.sqnr)}, the parts add up to {fmt.decibel(analysis.sqnr_predicted)}"
    if analysis.checks is not None:
        text += f"; real runs are within {analysis.checks:.2f} dB of the predictions"
    return text
