"""What ``convert`` says at the end: one screen, from the result and nothing else."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from quantcli.cli.plan_view import counts_sentence, show_plan
from quantcli.report.format import decibel, plural, size

if TYPE_CHECKING:
    from quantcli.cli.screen import Screen
    from quantcli.pipeline.types import ConvertRequest, ConvertResult
    from quantcli.runtime.kernel_report import KernelReport

_REASONS_SHOWN = 4
_UNFUSED_SHOWN = 5
_OUTPUTS_SHOWN = 4


def show_conversion(screen: Screen, request: ConvertRequest, result: ConvertResult) -> None:
    """The summary after a model was written."""
    assert result.output is not None
    ratio = result.output_bytes / result.source_bytes if result.source_bytes else 1.0
    screen.line((str(result.output), "bold"))
    screen.fact("size", f"{size(result.source_bytes)} → {size(result.output_bytes)} ({ratio:.3f} ×)")
    screen.fact("nodes", counts_sentence(result.plan))
    show_plan(screen, result.plan, limit=_REASONS_SHOWN)
    if result.kernels is not None and result.plan.narrow is None:
        _show_kernels(screen, result.kernels)
    _show_rounding(screen, request, result)
    _show_fidelity(screen, result)
    for path in result.files:
        if path != result.output:
            screen.fact("written", str(path))
    screen.fact("next", _next(request, result.output))


def show_dry_run(screen: Screen, request: ConvertRequest, result: ConvertResult) -> None:
    """The plan, and how to carry it out."""
    screen.line((f"{request.model.name} for {result.plan.target}: {counts_sentence(result.plan)}", "bold"))
    show_plan(screen, result.plan)
    if request.plan_out is not None:
        screen.fact("written", str(request.plan_out))


def _show_kernels(screen: Screen, kernels: KernelReport) -> None:
    found = ", ".join(f"{count} {name}" for name, count in sorted(kernels.integer.items(), key=_by_count))
    text = f"{kernels.fused} of {kernels.expected} run as integer kernels"
    if not kernels.expected:
        text = "none on integers: the runtime has none for these types"
    screen.fact("kernels", f"{text}: {found}" if found else text)
    unfused = sorted(kernels.unfused.items())
    shown = unfused if screen.settings.verbose else unfused[:_UNFUSED_SHOWN]
    if shown:
        screen.table(shown, head=("not fused", "why"), indent=2)
    if len(shown) < len(unfused):
        screen.line(f"  … and {plural(len(unfused) - len(shown), 'more node')} that did not fuse (-v shows them)")


def _show_rounding(screen: Screen, request: ConvertRequest, result: ConvertResult) -> None:
    """How channels were balanced, weights rounded and kernels placed."""
    facts = result.rounding
    if facts is not None:
        balanced = f", {facts.scaled:,} channels balanced" if facts.scaled else ""
        if facts.samples:
            ways = ", ".join(f"{count} {way}" for way, count in sorted(facts.variants.items(), key=_by_count))
            text = f"{ways} on {plural(facts.samples, 'sample')}{balanced} (activations: {size(facts.peak_bytes)})"
        else:
            text = f"nearest{balanced}"
        hint = "" if request.data.specs else "; --data CALIB rounds them against samples"
        screen.fact("weights", f"{facts.effort}: {text}{hint}")
    verdict = result.placement
    if verdict is not None and verdict.best_ratio is not None:
        ratio = verdict.best_ratio
        tried = plural(len(verdict.measurements), "alternative")
        text = f"{ratio.ratio:.2f} × the time of float ({ratio.low:.2f} to {ratio.high:.2f})"
        screen.fact("speed", f"{text}, measured with {tried} of placement")


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _show_fidelity(screen: Screen, result: ConvertResult) -> None:
    """The worst outputs first; what was measured on is part of the figure."""
    if not result.fidelity:
        screen.fact("fidelity", "not measured: give --eval-data, or run compare")
        return
    ranked = sorted(result.fidelity.items(), key=lambda item: (item[1], item[0]))
    shown = ranked if screen.settings.verbose else ranked[:_OUTPUTS_SHOWN]
    figures = ", ".join(f"{name} SQNR {decibel(value)}" for name, value in shown)
    if len(shown) < len(ranked):
        figures += f", and {plural(len(ranked) - len(shown), 'better output')}"
    screen.fact("fidelity", f"{figures}, on {result.fidelity_on}")
    if result.report is not None and result.report.synthetic:
        screen.fact("", "SYNTHETIC: on made-up samples this says nothing about the model")


def _next(request: ConvertRequest, output: Path) -> str:
    """The command that judges the result on samples that calibration has not seen."""
    words = ["quantcli", "compare", str(request.model), str(output)]
    for spec in request.eval_data.specs:
        words += ["--data", spec]
    text = shlex.join(words)
    return text if request.eval_data.specs else f"{text} --data EVAL"
