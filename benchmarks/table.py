"""The tables of the benchmarks, and how a document is given new ones."""

from __future__ import annotations

import datetime as dt
import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from judge import Result
from makers import ONNXRUNTIME

NONE = "–"

SUMMARY = (
    *("model", "float, ms", "Conv+MatMul", "SQNR, dB", "onnxruntime's best", "best of the others", "time / float"),
    *("/ onnxruntime's best", "verdict"),
)
DETAILS = (
    *("model", "maker", "SQNR, dB", "before Softmax", "other outputs", "top-1 drop", "agreement", "cosine"),
    *("size / float", "time / float", "to make, s", "peak MB"),
)


def number(value: float | None, form: str) -> str:
    """A figure; a dash where there is none."""
    return NONE if value is None or math.isnan(value) else format(value, form)


def line(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def head(columns: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [line(columns), "|" + "---|" * len(columns)]


def summary_row(result: Result) -> str:
    """The default of quantcli beside the best that the others do."""

    def best(name: str | None) -> str:
        return NONE if name is None else f"{result.quality[name].judged:.2f} ({name})"

    ours = result.quality.get(result.ours)
    theirs = result.best(ONNXRUNTIME)
    cells = [
        result.case.name,
        number(result.latency.milliseconds["float"] if result.latency else None, ".2f"),
        f"{result.share:.0%}",
        number(ours.judged if ours else None, ".2f"),
        best(theirs),
        best(result.best(*result.others)),
        number(result.time(result.ours), ".3f"),
        number(result.time(result.ours, theirs) if theirs else None, ".3f"),
        result.verdict,
    ]
    return line(cells)


def detail_rows(result: Result) -> Iterator[str]:
    """A line for every maker that was asked."""
    for maker in result.makers:
        made, found = result.made.get(maker.name), result.quality.get(maker.name)
        if made is None:
            continue
        cells = [result.case.name, maker.name]
        if found is None:
            cells += ["no model", *[NONE] * 7]
        else:
            first, *others = found.sqnr.values()
            cells += [
                f"{first:.2f}",
                number(found.logits, ".2f"),
                ", ".join(f"{value:.2f}" for value in others) or NONE,
                number(found.drop, "+.2f"),
                number(found.agreement, ".4f"),
                f"{found.cosine:.4f}",
                f"{result.sizes[maker.name]:.3f}",
                number(result.time(maker.name), ".3f"),
            ]
        yield line([*cells, f"{made.seconds:.1f} ({made.processor_seconds:.1f})", f"{made.peak_mb:.0f}"])


def notes(result: Result) -> Iterator[str]:
    """What failed, and what happened on the way."""
    for maker in result.makers:
        made = result.made.get(maker.name)
        if made is not None:
            for note in [*made.notes, *filter(None, [made.error])]:
                yield f"* {result.case.name}, {maker.name}: {note.splitlines()[0]}"


def conditions(tools: Mapping[str, str]) -> str:
    """On which day, with which versions and on what kind of machine."""
    processor = Path("/proc/cpuinfo")  # Linux only
    vnni = "vnni" in processor.read_text(encoding="utf-8") if processor.is_file() else None
    machine = platform.machine() + {True: " with VNNI", False: " without VNNI", None: ""}[vnni]
    named = ", ".join(f"{tool} {version}" for tool, version in tools.items())
    today = dt.datetime.now(dt.UTC).date()
    return f"{today}; {named}; Python {platform.python_version()}; {machine}, one thread."


def rewrite(document: Path, part: str, text: str) -> None:
    """Put ``text`` between the two comments in a document that name ``part``.

    Raises:
        ValueError: The document does not have them.
    """
    begin, end = (f"<!-- {part}: {word} -->" for word in ("begin", "end"))
    old = document.read_text(encoding="utf-8")
    before, found, rest = old.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"'{document}' has no lines '{begin}' and '{end}' to write between")
    document.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")


def print_and_keep(kept: list[str]) -> Callable[[str], None]:
    """A function that prints a line at once and keeps it for a document."""

    def say(text: str) -> None:
        print(text, flush=True)
        kept.append(text)

    return say
