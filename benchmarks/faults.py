"""Faults put into good int8 models: does compare catch them, and does it name the layer first?

For every model: an int8 model by quantcli's default command (or the one in ``--int8``), which must pass the
default gates; then every fault of ``fault_injection``, in layers spread over the model, one at a time; each is
compared with the float model by ``quantcli compare`` as it is, without labels and without gates of one's own.
*Caught*: a gate failed. *Named*: the first suspect is the layer (or the value) that was changed. *Harmless*: not
caught, and the SQNR of no output fell by as much as ``HARMLESS_DB``; what changes nothing is no fault.

Prints a table fault × model and every miss; ends with exit code 1 where a good model fails or a fault is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from fault_injection import FAULTS, Injector, Layer, possible
from models import Case, all_cases
from table import head, line, print_and_keep, rewrite

from quantcli.pipeline.compare import compare
from quantcli.pipeline.convert import convert
from quantcli.pipeline.types import CompareRequest, ConvertRequest, DataOptions
from quantcli.progress import SilentProgress
from quantcli.report.schema import Report

PART = "faults"

HARMLESS_DB = 0.1


@dataclass(kw_only=True)
class Cell:
    """One fault in one model.

    Attributes:
        tried: Layers with the fault, harmless ones left out.
        caught: Of these, caught.
        named: Of these, named first.
        harmless: Layers where it changed nothing.
        misses: What was not caught or not named.
    """

    tried: int = 0
    caught: int = 0
    named: int = 0
    harmless: int = 0
    misses: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """As in the table."""
        if not self.tried:
            return "harmless" if self.harmless else "–"
        rest = f" (+{self.harmless})" if self.harmless else ""
        return f"{self.caught} · {self.named} of {self.tried}{rest}"


def run(case: Case, model: Path, folder: Path, arguments: argparse.Namespace) -> tuple[Report, dict[str, Cell]]:
    """The good model's report, and every fault."""
    good = judged(case, model, arguments)
    source = model.read_bytes()
    layers = spread(Injector(onnx.load_from_string(source)).layers(), arguments.layers)
    cells = {fault: Cell() for fault in arguments.fault}
    broken = folder / f"{case.name}.fault.onnx"
    for fault, cell in cells.items():
        for number, layer in enumerate(layers):
            if not possible(fault, layer):
                continue
            injector = Injector(onnx.load_from_string(source))
            values = touched(injector, layer) if fault.startswith("activation") else set()
            FAULTS[fault](injector, layer, np.random.default_rng([arguments.seed, number]))
            onnx.save(injector.model, broken)
            count(cell, fault, layer, values, good, judged(case, broken, arguments))
    return good, cells


def judged(case: Case, model: Path, arguments: argparse.Namespace) -> Report:
    """``quantcli compare`` of the float model with ``model``."""
    request = CompareRequest(
        original=case.model,
        quantized=model,
        data=DataOptions(specs=(str(case.eval),), samples=arguments.samples),
        tensor_samples=arguments.tensor_samples,
        checks=False,
    )
    return compare(request, SilentProgress())


def spread(layers: list[Layer], count: int) -> list[Layer]:
    """``count`` of the layers, evenly spaced, without the first and the last where there are others."""
    inner = layers[1:-1] if len(layers) > count + 1 else layers
    places = sorted({int(place) for place in np.linspace(0, len(inner) - 1, min(count, len(inner)))})
    return [inner[place] for place in places]


def touched(injector: Injector, layer: Layer) -> set[str]:
    """Values whose integers the fault changes, as quantcli names them."""
    found = set()
    for node in injector.codec(layer.output):
        if injector.nodes[node].op_type == "QuantizeLinear":
            found.add(injector.nodes[node].output[0].removesuffix("_quantized").removesuffix("_equalized"))
    return found


def count(cell: Cell, fault: str, layer: Layer, values: set[str], good: Report, report: Report) -> None:
    """Add one result to its cell."""
    caught = report.verdict.status == "fail"
    drops = [
        before.sqnr - after.sqnr
        for before, after in zip(good.outputs, report.outputs, strict=True)
        if before.sqnr is not None and after.sqnr is not None
    ]
    if not caught and max(drops, default=0.0) < HARMLESS_DB:
        cell.harmless += 1
        return
    suspects = () if report.tensors is None else report.tensors.suspects
    named = bool(suspects) and (suspects[0].node == layer.node or suspects[0].tensor in values)
    cell.tried += 1
    cell.caught += caught
    cell.named += named
    if not (caught and named):
        first = f"first suspect '{suspects[0].node}' ({suspects[0].finding})" if suspects else "no suspect"
        what = "not named" if caught else "not caught"
        cell.misses.append(
            f"{fault}, '{layer.node}': {what}, {first}, SQNR {max(drops, default=0.0):.2f} dB lower"
        )


def good_model(case: Case, folder: Path, given: Path | None) -> Path:
    """The int8 model: the given one, or that of the default command."""
    if given is not None and (given / f"{case.name}.onnx").is_file():
        return given / f"{case.name}.onnx"
    made = folder / f"{case.name}.onnx"
    convert(
        ConvertRequest(model=case.model, output=made, data=DataOptions(specs=(str(case.calib),))), SilentProgress()
    )
    return made


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="directory of real models with an INDEX.json")
    parser.add_argument("--only", nargs="*", default=[], help="names of models")
    parser.add_argument("--int8", type=Path, help="directory of int8 models, NAME.onnx; others are made")
    parser.add_argument("--fault", nargs="*", default=list(FAULTS), help="names of faults")
    parser.add_argument("--layers", type=int, default=3, help="layers of each model (3)")
    parser.add_argument("--samples", type=int, default=128, help="evaluation samples (128)")
    parser.add_argument("--tensor-samples", type=int, default=32, help="of these, for tensors (32)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of channels (0)")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="put the table into a document")
    arguments = parser.parse_args()
    kept: list[str] = []
    say = print_and_keep(kept)
    bad = False
    columns: dict[str, dict[str, Cell]] = {}
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cases, remarks = all_cases(arguments.models, folder, tuple(arguments.only))
        print("\n".join(remarks))
        for case in cases:
            good, cells = run(case, good_model(case, folder, arguments.int8), folder, arguments)
            print(
                case.name,
                good.verdict.sentence,
                *(f"{name}: {cell.text}" for name, cell in cells.items()),
                sep="\n  ",
                flush=True,
            )
            columns[case.name] = cells
            if good.verdict.status == "fail":
                notes.append(f"- {case.name}, without a fault: {good.verdict.sentence}")
            notes += [f"- {case.name}: {miss}" for cell in cells.values() for miss in cell.misses]
    print()
    for text in head(("fault", *columns)):
        say(text)
    for fault in arguments.fault:
        say(line([fault, *(cells[fault].text for cells in columns.values())]))
    total = [cell for cells in columns.values() for cell in cells.values()]
    tried, caught, named = (sum(getattr(cell, key) for cell in total) for key in ("tried", "caught", "named"))
    harmless = sum(cell.harmless for cell in total)
    say(f"\n{caught} of {tried} faults caught, {named} named first; {harmless} changed nothing.")
    bad = caught < tried or any("without a fault" in note for note in notes)
    if notes:
        say("\nNot so:\n")
    for note in notes:
        say(note)
    if arguments.write:
        rewrite(arguments.write, PART, "\n".join(kept))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
