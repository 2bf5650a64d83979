"""The models that the benchmarks run on, with their samples and labels.

Two sources: the sample models of this repository, always; and a directory of real models, where one is given. Its
``INDEX.json`` is a list of entries ``{name, model, calib, eval, data_layout, labels?, labels_next?, image?}``:

* ``calib`` and ``eval`` are npz files, or folders of images; then ``image`` (scale, mean, std, layout, channels,
  input) says how a pixel becomes input, and a prepared npz file is written to the working directory.
* ``data_layout``: "batch_rows", row i of each array is sample i without its batch axis; "per_sample_feed", row i
  is the complete feed.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS_VARIABLE = "QUANTCLI_BENCH_MODELS"

Feed = dict[str, np.ndarray]

CONDITIONS = Path(__file__).resolve().parent / "conditions.toml"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A float model with calibration samples and samples to judge by.

    Attributes:
        name: Short name.
        model: The float model.
        calib: npz file, first axis samples.
        eval: npz file, first axis samples; disjoint from ``calib``.
        complete: Rows are complete feeds, not feeds without their batch axis.
        labels: True classes of ``eval``: [N], or [N, positions]; None without labels.
        output: The output that is judged; None for the first float output.
        decision: What is decided by it: "argmax", "half" (above 0.5), or None.
        limits: What must hold, by the names in conditions.toml.
        mask: Input that marks padding; None without one.
        states: Input by the output that it is fed from, in a streaming model.
        strict: Models whose activations are quantized as they run count as rivals, however slow they are.
    """

    name: str
    model: Path
    calib: Path
    eval: Path
    complete: bool = False
    labels: Path | None = None
    output: str | None = None
    decision: str | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    mask: str | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False


def sample_models() -> list[Case]:
    """The models of this repository."""
    folder = REPOSITORY / "sample_models"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return [
        Case(
            name=entry["name"],
            model=folder / entry["file"],
            calib=folder / entry["calibration"],
            eval=folder / entry["evaluation"],
            labels=folder / entry["labels"],
            decision="argmax",
        )
        for entry in manifest["models"]
    ]


def real_models(folder: Path, work: Path) -> list[Case]:
    """The models of a directory; images become npz files under ``work``."""
    cases = []
    conditions = tomllib.loads(CONDITIONS.read_text(encoding="utf-8"))
    for entry in json.loads((folder / "INDEX.json").read_text(encoding="utf-8")):
        labels = entry.get("labels") or entry.get("labels_next")
        known = dict(conditions.get(entry["name"], {}))
        output, decision = known.pop("output", None), known.pop("decision", "argmax" if labels else None)
        cases.append(
            Case(
                name=entry["name"],
                model=folder / entry["model"],
                calib=_as_npz(folder, entry, "calib", work),
                eval=_as_npz(folder, entry, "eval", work),
                complete=entry.get("data_layout") == "per_sample_feed",
                labels=folder / labels if labels else None,
                output=output,
                decision=decision,
                mask=known.pop("mask", None),
                states=known.pop("states", {}),
                strict=known.pop("strict", False),
                limits=known,
            )
        )
    return cases


def _as_npz(folder: Path, entry: Mapping[str, Any], part: str, work: Path) -> Path:
    source = folder / entry[part]
    if not source.is_dir():
        return source
    target = work / entry["name"] / f"{part}.npz"
    if target.is_file():
        return target
    from PIL import Image  # the extra "images"; only needed here

    spec = entry["image"]
    x = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in sorted(source.iterdir())])
    x = x.astype(np.float32)
    if spec["channels"] == "bgr":
        x = x[..., ::-1]
    x = (x * np.float32(spec["scale"]) - np.float32(spec["mean"])) / np.float32(spec["std"])
    if spec["layout"] == "nchw":
        x = x.transpose(0, 3, 1, 2)
    target.parent.mkdir(parents=True, exist_ok=True)
    part_file = target.with_name(f"{part}.unfinished.npz")
    np.savez(part_file, **{spec["input"]: np.ascontiguousarray(x, dtype=np.float32)})
    part_file.replace(target)
    return target


def all_cases(models: Path | None, work: Path, only: tuple[str, ...] = ()) -> tuple[list[Case], list[str]]:
    """Every case, and notes on what is missing.

    Args:
        models: Directory of real models; None for the one that the environment names, if it does.
        work: Where prepared samples go.
        only: Names; empty for all.
    """
    notes = []
    if models is None and os.environ.get(MODELS_VARIABLE):
        models = Path(os.environ[MODELS_VARIABLE])
    cases = sample_models()
    if models is None:
        notes.append(f"sample models only: no directory of real models given (--models, or {MODELS_VARIABLE})")
    else:
        cases = [*real_models(models, work), *cases]
    unknown = sorted(set(only) - {case.name for case in cases})
    if unknown:
        notes.append(f"no such model: {', '.join(unknown)}")
    return [case for case in cases if not only or case.name in only], notes


def feeds(path: Path, complete: bool, dtypes: Mapping[str, Any]) -> Iterator[Feed]:
    """The samples of an npz file, one complete feed each, cast to what the model takes."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name in dtypes}
    for row in range(len(next(iter(arrays.values())))):
        part = slice(row, row + 1)
        yield {
            # asarray: a scalar input's row is a scalar, which onnxruntime does not take
            name: np.asarray(values[row] if complete else values[part], dtype=dtypes[name])
            for name, values in arrays.items()
        }


def verdict(total: int, failed: list[str], refused: list[str]) -> int:
    """Print how many models pass and which do not; the exit code."""
    print(f"\n{total - len(failed) - len(refused)} of {total} models pass")
    for what, names in (("failed", failed), ("refused", refused)):
        print(f"{what}: {', '.join(names) or 'none'}")
    return 1 if failed else 0
