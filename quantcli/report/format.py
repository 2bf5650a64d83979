"""Numbers and names as people read them; shared by the renderings, so that all of them say the same."""

from __future__ import annotations

import math
import unicodedata

from quantcli.report.schema import Accuracy, Latency, Memory, Rate, Report, TaskMetric

MISSING = "–"
"""Stands where nothing was measured."""

SYNTHETIC = "SYNTHETIC data: made-up samples say nothing about the quality of the model"
"""Stands in every rendering of a report over made-up samples."""

MARKS = {"pass": "ok", "fail": "FAIL", "undecided": "undecided", "not-measured": "NOT MEASURED"}
"""Words for the status of a gate."""


_UNITS = (("kB", 1e3), ("MB", 1e6), ("GB", 1e9))


def number(value: float | None, digits: int = 4) -> str:
    """Significant digits, without an exponent where it reads well."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(value)
    return f"{value:.{digits}g}"


def decibel(value: float | None) -> str:
    """SQNR: one decimal, "exact" for no error at all."""
    if value is None:
        return MISSING
    if value == math.inf:
        return "exact"
    return f"{value:.1f} dB" if math.isfinite(value) else f"{value} dB"


def cosine(value: float | None) -> str:
    """Cosine similarity, with as many nines as it takes."""
    if value is None:
        return MISSING
    return f"{value:.6f}".rstrip("0").rstrip(".") if math.isfinite(value) else str(value)


def percent(value: float | None) -> str:
    """A fraction in percent."""
    return MISSING if value is None else f"{100 * value:.2f} %"


def interval(low: float | None, high: float | None, digits: int = 4) -> str:
    """Both ends of an interval."""
    return MISSING if low is None and high is None else f"{number(low, digits)} … {number(high, digits)}"


def rate(value: Rate | None) -> str:
    """A proportion with its interval."""
    if value is None:
        return MISSING
    return f"{100 * value.value:.2f} % [{100 * value.low:.2f}, {100 * value.high:.2f}]"


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * value + 0.0:+.2f} pp"


def accuracy_change(value: Accuracy) -> str:
    """What quantization did to the accuracy, with its interval; a loss is negative."""
    return f"{points(-value.drop)} [{100 * -value.drop_high:+.2f}, {100 * -value.drop_low:+.2f}]"


def size(count: int | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return MISSING
    if count < 1000:
        return f"{count} B"
    unit, scale = next(((u, s) for u, s in _UNITS if count < 999.95 * s), _UNITS[-1])
    value = count / scale
    return f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}"


def latency(value: Latency) -> str:
    """The ratio with its interval, then the medians behind it."""
    threads = "1 thread" if value.threads == 1 else f"{value.threads} threads"
    return (
        f"{value.ratio:.3f} × [{value.low:.3f}, {value.high:.3f}] "
        f"({value.original_ms:.3g} ms → {value.quantized_ms:.3g} ms, {threads}, {value.pairs} pairs)"
    )


def memory(value: Memory) -> str:
    """The ratio of what the models need, then the peaks behind it."""
    peaks = f"{size(value.original_bytes)} → {size(value.quantized_bytes)}"
    return f"{value.ratio:.3f} × (peak {peaks}, {size(value.baseline_bytes)} without a model)"


def metric(value: TaskMetric) -> str:
    """Both models' figures and what was lost, with its interval."""
    text = f"{number(value.original)} → {number(value.quantized)}, loss {number(value.drop, 3)}"
    if value.drop_low is None or value.drop_high is None:
        return text
    return f"{text} [{number(value.drop_low, 3)}, {number(value.drop_high, 3)}]"


def headline(report: Report) -> str:
    """The verdict in one line; one that failed or is undecided says why."""
    found = _reasons(report)
    if not found:
        return report.verdict.sentence
    kind = "failed" if report.verdict.status == "fail" else "undecided"
    more = f" (and {plural(len(found) - 1, f'more {kind} gate')})" if len(found) > 1 else ""
    return f"{found[0]}{more}"


def tally(report: Report) -> str:
    """What the verdict says besides its headline; "" for nothing."""
    found = _reasons(report)
    return report.verdict.sentence.replace(f": {found[0]}", "") if found else ""


def _reasons(report: Report) -> list[str]:
    """Sentences of the gates that made the verdict a failure, or left it undecided."""
    wanted = {"fail": ("fail", "not-measured"), "undecided": ("undecided",)}.get(report.verdict.status, ())
    return [gate.sentence for gate in report.gates if gate.severity == "fail" and gate.status in wanted]


def plural(count: int, noun: str) -> str:
    """The count with its noun, which takes an s for any count but one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def name(text: str, width: int = 80) -> str:
    """A name fit for one line: control characters replaced, the middle of long ones left out."""
    clean = text if text.isprintable() else "".join(" " if _unfit(char) else char for char in text)
    if len(clean) <= width:
        return clean
    head = (width - 1) // 2
    return f"{clean[:head]}…{clean[len(clean) - (width - 1 - head) :]}"


def _unfit(char: str) -> bool:
    """Whether a character controls what reads it, is half of one, or is one that XML cannot hold."""
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") or char in "\ufffe\uffff"
