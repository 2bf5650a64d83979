"""An analysis on a terminal: one screen, all layers with ``verbose``."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from quantcli.report import analysis_lines as lines
from quantcli.report import format as fmt
from quantcli.report.analysis import Analysis
from quantcli.report.terminal import TerminalLines

_LAYERS_SHOWN = 12
_REMEDIES_SHOWN = 5


def render_analysis_terminal(
    analysis: Analysis, console: Console, *, verbose: bool = False, top: int = _LAYERS_SHOWN
) -> None:
    """Write the analysis to ``console``: the ``top`` layers, what to do, and the exclude block.

    Args:
        analysis: What to show.
        console: Where.
        verbose: All layers, and all remedies.
        top: Layers in the table.
    """
    screen = TerminalLines(console)
    screen.line((fmt.name(analysis.model.name), "bold"), ("  where quantization makes its error", ""))
    if analysis.data.synthetic:
        screen.line((fmt.SYNTHETIC, "bold red reverse"))
    for name in analysis.outputs:
        screen.line(("output    ", "dim"), (f"{fmt.name(name, 40)}: {lines.summary(analysis)}", ""))
    samples = fmt.plural(analysis.data.samples, "sample")
    screen.line(("data      ", "dim"), (f"{fmt.name(analysis.data.name)}, {samples}", ""))
    shown = analysis.layers if verbose else analysis.layers[:top]
    screen.table("Layers, by what leaving them in float gains", lines.HEAD, [lines.cells(item) for item in shown])
    if len(shown) < len(analysis.layers):
        screen.line((f"… and {len(analysis.layers) - len(shown)} more layers (-v shows them)", "dim"))
    for layer in shown if verbose else shown[:_REMEDIES_SHOWN]:
        node, evidence, remedy = lines.remedy_cells(layer)
        console.print()
        screen.line((node, "bold"), (f"  {layer.cause}: {evidence}", ""))
        screen.line(("  try     ", "dim"), (remedy, ""))
    if analysis.exclude:
        screen.table("Worth leaving in float", lines.STEP_HEAD, lines.step_cells(analysis))
        console.print()
        for line in lines.block(analysis):
            console.print(Text(line), soft_wrap=True)
    else:
        console.print()
        screen.line(("No layer is worth leaving in float by itself.", "bold"))
    for note in analysis.notes:
        screen.line(("note      ", "dim"), (fmt.name(note, 300), ""))
