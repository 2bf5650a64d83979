"""Time and memory of quantcli's commands on a model that is larger than they may hold.

The model (big_model.py) is written once into the folder. Every command runs in a process of its own; its peak is
the largest resident memory that the system saw of it (ru_maxrss), mapped files included. Prints a Markdown table,
and ends with exit code 1 where a command failed or took more than the limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from big_model import Size, write_model
from processes import execute

INT4 = ("--weight-only", "--weight-bits", "4", "--granularity", "block:32")

COMMANDS = {
    "inspect": ("inspect", "{model}"),
    "plan": ("convert", "{model}", *INT4, "--dry-run"),
    "int4, blocks of 32": ("convert", "{model}", "-o", "{int4}", *INT4, "-f"),
    "int8, per channel": ("convert", "{model}", "-o", "{int8}", "--weight-only", "--weight-bits", "8", "-f"),
    "dynamic": ("convert", "{model}", "-o", "{dynamic}", "--dynamic", "-f"),
    "fp16": ("convert", "{model}", "-o", "{fp16}", "--bits", "fp16", "-f"),
    "compare": ("compare", "{model}", "{int4}"),
}
"""What is run, by the name of its row."""


def file_bytes(path: Path) -> int:
    """Bytes of a model and its external data; 0 where it is not there."""
    return sum(part.stat().st_size for part in (path, path.with_name(path.name + ".data")) if part.is_file())


def run(folder: Path, size: Size, only: list[str], limit_mb: float) -> bool:
    """Run the commands and print their rows; whether all of them held."""
    files = {name: folder / f"{name}.onnx" for name in ("model", "int4", "int8", "dynamic", "fp16")}
    if file_bytes(files["model"]) < size.weight_bytes:
        write_model(files["model"], size)
    print(f"Model of {file_bytes(files['model']) / 1e9:.2f} GB, peak to stay below {limit_mb:.0f} MB.\n")
    print("| command | seconds | peak, MB | result, GB |\n|---|---|---|---|")
    held = True
    for name, command in COMMANDS.items():
        if only and name not in only:
            continue
        arguments = [part.format(**files) for part in command]
        done = execute([sys.executable, "-m", "quantcli", *arguments])
        made = file_bytes(Path(arguments[3])) if "-o" in arguments else 0
        size_told = f"{made / 1e9:.2f}" if made else ""
        print(f"| {name} | {done.seconds:.0f} | {done.peak_mb:.0f} | {done.error or size_told} |", flush=True)
        held = held and done.error is None and done.peak_mb <= limit_mb
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, help="folder for the files, which stay there; default: a temporary one"
    )
    parser.add_argument(
        "--layers", type=int, default=Size().layers, help="layers of the model (default: %(default)s)"
    )
    parser.add_argument(
        "--only", action="append", default=[], choices=sorted(COMMANDS), help="run these rows only"
    )
    parser.add_argument(
        "--limit", type=float, default=1000, help="peak in MB that is allowed (default: %(default)s)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        held = run(folder, Size(layers=arguments.layers), arguments.only, arguments.limit)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
