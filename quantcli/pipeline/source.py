"""The float model as the other steps need it: loaded, checked in the runtime, prepared for a target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from quantcli.data.base import InputSpec
from quantcli.errors import ModelError, RuntimeFailure, UnsupportedModelError
from quantcli.graph.loadable import loadable
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model, model_digest, model_size
from quantcli.graph.observe import expose
from quantcli.graph.opset_lower import cannot_be_lowered, lower_opset
from quantcli.graph.prepare import prepare
from quantcli.graph.shapes import infer_shapes, state_types, stated_values
from quantcli.graph.view import GraphView
from quantcli.graph.weightless import without_weights
from quantcli.graph.whole_view import whole_view
from quantcli.ops.targets import TARGETS
from quantcli.pipeline.already_quantized import quantized_before
from quantcli.pipeline.large import is_large_size, stated_inputs
from quantcli.quantize.choices import Choices
from quantcli.quantize.plan import Plan
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.widths import PER_CHANNEL_OPSET, PER_TENSOR_OPSET, OpsetNeed, opset_need
from quantcli.runtime.session import Session, SessionSettings, runtime_version
from quantcli.runtime.versions import newest_quantized_opset, runnable_versions

runnable = loadable
"""A model in a form that a session loads."""


USUAL_NEED = OpsetNeed(opset=PER_CHANNEL_OPSET)
"""Of 8 bits, with a scale per channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatModel:
    """A float model and what is known of it.

    Attributes:
        path: Its file.
        digest: sha256 over the file and its external data.
        bytes: Size of the same.
        inputs: Inputs as the runtime states them.
        prepared: The graph after preparation for the target.
        view: Picture of its main graph.
        whole: The same with the bodies of If, Loop and Scan lying open; what plans are made of.
        stated: Intermediate values whose types the file itself states.
        notes: What preparation did that the user should know.
    """

    path: Path
    digest: str
    bytes: int
    inputs: tuple[InputSpec, ...]
    prepared: OnnxModel
    view: GraphView
    whole: GraphView
    stated: frozenset[str]
    notes: tuple[str, ...]

    def with_graph(self, prepared: OnnxModel) -> FloatModel:
        """The same with another prepared graph, such as an equalized one."""
        return replace(self, prepared=prepared, view=prepared.view(), whole=whole_view(prepared))

    @property
    def large(self) -> bool:
        """Whether its weights are never all in memory, if it can be helped."""
        return is_large_size(self.bytes)


def load_float_model(
    path: Path,
    target: str,
    *,
    opset: int | None = None,
    need: OpsetNeed = USUAL_NEED,
    threads: int = 1,
    choices: Choices | None = None,
    lowest: int | None = None,
) -> FloatModel:
    """Load, check and prepare.

    Args:
        path: Model file.
        target: Name of the target that preparation serves.
        opset: Wanted ai.onnx version; None for the lowest that quantization needs.
        need: The lowest opset that has what is wanted.
        threads: For the runtime's check.
        choices: Of a plan or a recipe; those about preparation are applied. None for the static rules.
        lowest: ai.onnx version that the form needs, in place of what Q/DQ nodes of the target need.

    Raises:
        ModelError: The file is unreadable, or the runtime refuses it (M102).
        UnsupportedModelError: It uses something that quantcli cannot preserve.
    """
    model, inputs, checked = load_checked(path, threads=threads)
    if opset is not None and opset < max(model.opset, PER_TENSOR_OPSET):
        raise ModelError(
            "M303",
            f"opset {opset} is asked for, but the model has opset {model.opset}; opsets are only raised",
            hint=f"quantized operators exist from opset {PER_TENSOR_OPSET} on; leave --opset out",
        )
    newest = newest_quantized_opset()
    if opset is not None and opset > newest:
        raise ModelError(
            "M303",
            f"opset {opset} is asked for; {newest} is the newest at which onnxruntime {runtime_version()} has "
            "quantized operators",
            hint=f"ask for at most {newest}",
        )
    lowered = _lower(model, newest)
    if opset is not None and need.cause and opset < need.opset:
        raise ModelError(
            "M303",
            f"opset {opset} is asked for, but {need.cause} exist from opset {need.opset} on",
            hint="leave --opset out, or the bits at 8",
        )
    if lowest is None:
        need = replace(need, opset=max(TARGETS[target].opset, need.opset))
    else:
        need = OpsetNeed(opset=lowest)
    prepared, notes = _prepare(model, target, opset, need, choices or Choices())
    infer_shapes(prepared)
    ask_runtime_for_types(prepared)
    return FloatModel(
        path=path,
        digest=model_digest(path),
        bytes=model_size(path),
        inputs=inputs,
        prepared=prepared,
        view=prepared.view(),
        whole=whole_view(prepared),
        stated=stated_values(model),
        notes=(*lowered, *notes, *checked),
    )


def _lower(model: OnnxModel, newest: int) -> tuple[str, ...]:
    """Write a model of an opset for which the runtime has no quantizers for the newest that has them."""
    if model.opset <= newest:
        return ()
    given = (
        f"the model has opset {model.opset}; onnxruntime {runtime_version()} has no QuantizeLinear beyond {newest}"
    )
    reason = cannot_be_lowered(model, newest)
    if reason:
        raise ModelError("M303", f"{given}, and {reason}", hint=f"export the model for opset {newest}")
    lower_opset(model, newest)
    return (f"{given}; the result has opset {newest}, which changes nothing",)


def load_checked(path: Path, *, threads: int) -> tuple[OnnxModel, tuple[InputSpec, ...], tuple[str, ...]]:
    """The model of a file that the runtime accepts, its inputs, and what the user should know of that check.

    Raises:
        ModelError: The file is unreadable, or the runtime refuses it (M302).
        UnsupportedModelError: It uses something that quantcli cannot preserve.
    """
    model = load_model(path, limits=runnable_versions())
    try:
        inputs, checked = stated_inputs(model, path, threads=threads)
    except RuntimeFailure as error:
        raise ModelError("M302", f"'{path.name}': {error.message}", hint=error.hint) from error
    return model, inputs, checked


def load_for_recipe(
    path: Path, recipe: Recipe, *, opset: int | None, threads: int, choices: Choices | None = None
) -> FloatModel:
    """``load_float_model`` as a recipe wants it, with ``choices`` in place of its own where they are given."""
    return load_float_model(
        path,
        recipe.target,
        opset=opset,
        need=opset_need(recipe),
        threads=threads,
        choices=choices or recipe.choices,
    )


def _evaluate(model: bytes, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Constant folding uses plain kernels, so that it does not depend on what the runtime fuses."""
    return Session(model, SessionSettings(optimization="disabled")).run(feeds)


def _prepare(
    model: OnnxModel, target: str, opset: int | None, need: OpsetNeed, choices: Choices
) -> tuple[OnnxModel, tuple[str, ...]]:
    wanted = max(opset or 0, need.opset)
    form = TARGETS[target]
    prepared = partial(
        prepare,
        model,
        evaluate=_evaluate,
        silu_operator=form.silu_operator if choices.silu == "fused" else "",
        residual_sum=form.residual_sum and choices.residual_norm == "sum",
        average_pool_as_conv=choices.average_pool == "convolution",
    )
    try:
        done = prepared(target_opset=wanted)
    except UnsupportedModelError as error:
        if error.code == "M210" and need.cause and opset is None:
            raise UnsupportedModelError(
                "M210", f"{error.message}; {need.cause} need that", hint="leave the bits at 8"
            ) from error
        if error.code != "M210" or opset is not None or model.opset < PER_TENSOR_OPSET:
            raise
        done = prepared()
        reason = f"{error.message}; the opset stays at {model.opset}, so weights have one scale per tensor"
        return done.model, (*done.notes, reason)
    return done.model, done.notes


def ask_runtime_for_types(model: OnnxModel) -> None:
    """Fill in the element types that shape inference could not find: the runtime knows every one."""
    view = model.view()
    unknown = [
        name
        for node in view.nodes
        for name in node.outputs
        if name and view.tensors[name].dtype is None and not view.tensors[name].is_output
    ]
    if not unknown:
        return
    structure = without_weights(expose(model, unknown)).model
    session = Session(structure.to_bytes(), SessionSettings(optimization="disabled"))
    types = {spec.name: spec for spec in session.outputs if "(" not in spec.dtype}
    state_types(model, {name: (types[name].dtype, types[name].shape) for name in unknown if name in types})


def nothing_to_quantize(source: FloatModel, plan: Plan) -> ModelError:
    """The error for a plan without kernels: it names the commonest reasons of nodes that compute."""
    before = quantized_before(plan)
    if before:
        return ModelError(
            "M304",
            f"nothing is left to quantize in '{source.path.name}' for target '{plan.target}': {before} of its "
            f"{len(plan.nodes)} nodes are quantized already",
            hint="start from the float model to quantize it in another way",
        )
    told = [(node.op_type, node.reason) for node in plan.nodes if node.reason is not None]
    telling = [item for item in told if item[1].code not in {"F221", "F901"}] or [
        item for item in told if item[1].code != "F901"
    ]
    reasons = Counter(f"{op_type}: {reason.sentence}" for op_type, reason in telling)
    named = "; ".join(sentence for sentence, _ in reasons.most_common(3)) or "no node computes on floats"
    return ModelError(
        "M304",
        f"nothing in '{source.path.name}' can be quantized for target '{plan.target}' ({named})",
        hint=f"see every node's reason with: quantcli inspect {source.path.name} -v",
    )
