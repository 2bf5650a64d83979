"""The float model as it is: for conversions that leave the structure of the graph alone."""

from __future__ import annotations

from pathlib import Path

from quantcli.errors import ModelError
from quantcli.graph.model_io import model_digest, model_size
from quantcli.graph.prepare import prepare_lightly
from quantcli.graph.shapes import stated_values
from quantcli.graph.whole_view import whole_view
from quantcli.pipeline.source import FloatModel, ask_runtime_for_types, load_checked
from quantcli.runtime.versions import runnable_versions


def load_lightly(
    path: Path, *, opset: int | None = None, lowest: int = 0, float_type: str = "", threads: int = 1
) -> FloatModel:
    """Load and check a model; nodes get names and values get types, nothing else changes.

    Args:
        path: Model file.
        opset: Wanted ai.onnx version; None for the model's own, or ``lowest``.
        lowest: Version that the conversion needs.
        float_type: Narrow float type that the model may hold as it is; others are widened to float32.
        threads: For the runtime's check.

    Raises:
        ModelError: The file is unreadable, the runtime refuses it (M302), or the opset cannot be had (M303).
        UnsupportedModelError: It uses something that quantcli cannot preserve, or cannot be raised (M210).
    """
    model, inputs, checked = load_checked(path, threads=threads)
    newest = runnable_versions().max_opset
    if opset is not None and not model.opset <= opset <= newest:
        raise ModelError(
            "M303",
            f"opset {opset} is asked for, but the model has opset {model.opset}; opsets are only raised, to "
            f"{newest} at most",
            hint="leave --opset out",
        )
    prepared = prepare_lightly(model, max(opset or 0, lowest) or None, float_type=float_type)
    ask_runtime_for_types(prepared.model)
    return FloatModel(
        path=path,
        digest=model_digest(path),
        bytes=model_size(path),
        inputs=inputs,
        prepared=prepared.model,
        view=prepared.model.view(),
        whole=whole_view(prepared.model),
        stated=stated_values(model),
        notes=(*prepared.notes, *checked),
    )
