"""Make the sample models, their data and their manifest.

    python -m venv .venv-samples
    .venv-samples/bin/pip install -r sample_models/requirements.txt
    .venv-samples/bin/python sample_models/make_samples.py

takes about five minutes on one core. Everything is seeded and runs on one thread: on the same machine the
files come out the same, byte for byte. Other processors round otherwise and training amplifies that, so
elsewhere the data are the same, the models and their figures a little different.

`--measure` trains nothing: it measures the models that are there and writes the manifest anew, which
needs onnx, onnxruntime and numpy only.
"""

from __future__ import annotations

import argparse
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from training.manifest import CALIB, EVAL, LABELS, MODELS, write_manifest

SEED = 2024
COPIES = 25
"""Images rendered of each training digit."""

PLAN = {  # epochs and highest learning rate
    "digits_cnn": (3, 3e-3),
    "digits_mobilenet": (4, 4e-3),
    "digits_transformer": (14, 2e-3),
}


def main() -> None:
    """Make everything, or measure what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="train nothing, write the manifest anew")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="directory to write to")
    arguments = parser.parse_args()
    made_with = None if arguments.measure else make(arguments.out)
    show(write_manifest(arguments.out, made_with))


def make(folder: Path) -> dict[str, str]:
    """Render the data, train the models and write both; returns the versions of the packages used."""
    from training.cnn import DigitsCnn
    from training.dataset import make_parts
    from training.fit import fit
    from training.mobilenet import DigitsMobilenet
    from training.transformer import DigitsTransformer

    parts = make_parts(SEED, COPIES)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / CALIB, image=parts["calib"].images)
    np.savez_compressed(folder / EVAL, image=parts["eval"].images)
    np.save(folder / LABELS, parts["eval"].labels)
    for name, network in zip(MODELS, (DigitsCnn, DigitsMobilenet, DigitsTransformer), strict=True):
        epochs, rate = PLAN[name]
        start = time.perf_counter()
        trained: Any = fit(network, parts["train"], seed=SEED, epochs=epochs, peak_rate=rate)
        trained.export(folder / f"{name}.onnx")
        check_export(trained, folder / f"{name}.onnx", parts["eval"].images)
        print(f"{name}: trained in {time.perf_counter() - start:.0f} s")
    return {package: version(package) for package in ("torch", "scikit-learn", "scipy", "pillow", "numpy", "onnx")}


def check_export(network: Any, path: Path, images: np.ndarray) -> None:
    """Raise if the file's output differs from torch's by more than float rounding explains."""
    import torch
    from training.measure import logits_of

    with torch.no_grad():
        wanted = network(torch.from_numpy(images)).numpy()
    error = float(np.abs(logits_of(path, images) - wanted).max())
    if error > 1e-4:  # the logits are of size 10, float32 carries 7 digits
        raise RuntimeError(f"{path.name} differs from the trained network by {error:.1e}")


def show(manifest: dict[str, Any]) -> None:
    """Print the figures as the table in README.md has them."""
    print("| model | KiB | float top-1 % | per channel: dB, top-1 % | per tensor: dB, top-1 % |")
    print("|---|---|---|---|---|")
    for model in manifest["models"]:
        figures = model["reference_onnxruntime"]
        cells = [f"{figures[k]['sqnr_db']}, {figures[k]['top1_percent']}" for k in ("per_channel", "per_tensor")]
        size, top1 = round(model["bytes"] / 1024), model["float"]["top1_percent"]
        print(f"| {model['file']} | {size} | {top1} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
