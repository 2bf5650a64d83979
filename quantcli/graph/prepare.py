"""Preparation: small passes that make a float graph fit for planning and change nothing that it computes.

Order matters. Names come before anything that speaks of nodes. What nobody reads goes before the opset is
raised, so that a dead node cannot forbid it, and constants are folded before, so that the steps from opset to
opset see their values; what those steps add is folded after them. Then come the passes that read attributes in
their newer form. All passes work on a copy; names of the user's nodes stay. Bodies are prepared as the main graph
is, except by those passes that say otherwise; afterwards no two graphs share the name of a node or value.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir.passes.common import RemoveUnusedOpsetsPass

from quantcli.graph.model import OnnxModel
from quantcli.graph.opset import upgrade_opset
from quantcli.graph.passes.average_pool_as_conv import write_average_pool_as_conv
from quantcli.graph.passes.choose_branches import choose_branches
from quantcli.graph.passes.collapse_casts import collapse_casts
from quantcli.graph.passes.drop_inputs import drop_initializers_from_inputs
from quantcli.graph.passes.fold_batchnorm import fold_batchnorm
from quantcli.graph.passes.fold_constants import Evaluate, fold_constants
from quantcli.graph.passes.fuse_silu import fuse_silu
from quantcli.graph.passes.global_average_pool import use_global_average_pool
from quantcli.graph.passes.inline_functions import inline_functions
from quantcli.graph.passes.lift_constants import lift_constants
from quantcli.graph.passes.name_nodes import name_nodes
from quantcli.graph.passes.remove_identities import remove_identities
from quantcli.graph.passes.remove_unused import remove_unused
from quantcli.graph.passes.residual_sum import write_residuals_as_sum
from quantcli.graph.passes.share_constants import share_constants
from quantcli.graph.passes.unfuse_attention import unfuse_attention
from quantcli.graph.passes.unfuse_layers import unfuse_layers
from quantcli.graph.passes.unfuse_sums import unfuse_sums
from quantcli.graph.passes.widen_floats import half_types, widen_floats
from quantcli.graph.scopes import separate_values
from quantcli.graph.shapes import infer_shapes, shapes_known
from quantcli.graph.traverse import nested_graphs

__all__ = ["Evaluate", "Prepared", "prepare"]


UNLISTED_INITIALIZERS_IR = 4
"""First IR version in which initializers need not be graph inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A prepared model.

    Attributes:
        model: The copy.
        notes: What the user should know, one sentence each.
    """

    model: OnnxModel
    notes: tuple[str, ...]


def prepare(
    model: OnnxModel,
    *,
    evaluate: Evaluate,
    target_opset: int | None = None,
    silu_operator: str = "",
    residual_sum: bool = False,
    average_pool_as_conv: bool = False,
) -> Prepared:
    """Prepare a copy of ``model``.

    Args:
        model: Float model; not changed.
        evaluate: Runs a small model, to fold constants.
        target_opset: Version that ai.onnx is raised to; older and equal ones change nothing.
        silu_operator: Operator of com.microsoft for x·sigmoid(x); "" leaves it in two nodes.
        residual_sum: Write the Add in front of a LayerNormalization as Sum.
        average_pool_as_conv: Write AveragePool as a depthwise convolution where that is exact.

    Raises:
        UnsupportedModelError: M210, the opset cannot be raised.
    """
    copy = model.clone()
    graph_model = copy.ir
    notes: list[str] = []
    notes += inline_functions(graph_model)
    separate_values(graph_model.graph)
    notes += drop_initializers_from_inputs(graph_model)
    copy.ir_version = max(copy.ir_version, UNLISTED_INITIALIZERS_IR)
    notes += lift_constants(graph_model)
    notes += name_nodes(graph_model)
    widened = widen_floats(graph_model)
    notes += widened
    notes += remove_unused(graph_model)
    RemoveUnusedOpsetsPass()(graph_model)
    infer_shapes(copy)  # once in any case: what files state may be stale
    if widened:
        collapse_casts(graph_model)
    _simplify(copy, evaluate)
    if target_opset is not None and target_opset > copy.opset:
        upgrade_opset(copy, target_opset)
        notes += lift_constants(graph_model)
        notes += name_nodes(graph_model)
        _simplify(copy, evaluate)
    notes += unfuse_layers(graph_model)
    notes += unfuse_attention(graph_model)
    notes += unfuse_sums(graph_model)
    notes += fold_batchnorm(graph_model)
    separate_values(graph_model.graph)
    notes += use_global_average_pool(graph_model)
    if silu_operator:
        notes += fuse_silu(graph_model, silu_operator)
    if residual_sum:
        notes += write_residuals_as_sum(graph_model)
    if average_pool_as_conv:
        notes += write_average_pool_as_conv(graph_model)
    remove_unused(graph_model)  # what the passes left over; nothing of the user's
    share_constants(graph_model)
    copy.sort()
    if not shapes_known(copy):
        infer_shapes(copy)
    return Prepared(model=copy, notes=tuple(notes))


def prepare_lightly(model: OnnxModel, target_opset: int | None = None, *, float_type: str = "") -> Prepared:
    """A copy of ``model`` with names, lifted constants and types, and otherwise as it is.

    For conversions that leave the structure of the graph alone. ``target_opset`` and the error are those of
    ``prepare``; a model that computes in a narrow type other than ``float_type`` is widened to float32.
    """
    copy = model.clone()
    notes = list(inline_functions(copy.ir))
    separate_values(copy.ir.graph)
    notes += drop_initializers_from_inputs(copy.ir)
    copy.ir_version = max(copy.ir_version, UNLISTED_INITIALIZERS_IR)
    notes += lift_constants(copy.ir)
    notes += name_nodes(copy.ir)
    widened = widen_floats(copy.ir) if set(half_types(copy.ir)) - {float_type} else ()
    notes += widened
    infer_shapes(copy)
    if widened:
        collapse_casts(copy.ir)
    if target_opset is not None and target_opset > copy.opset:
        upgrade_opset(copy, target_opset)
        notes += lift_constants(copy.ir)
        notes += name_nodes(copy.ir)
        infer_shapes(copy)
    copy.sort()
    return Prepared(model=copy, notes=tuple(notes))


def _simplify(model: OnnxModel, evaluate: Evaluate) -> None:
    """Remove identities, fold constants and choose branches, until what became known thereby changes no more."""
    remove_identities(model.ir)
    before = -1
    while before != (nodes := sum(len(graph) for graph in nested_graphs(model.ir.graph))):
        before = nodes
        if not shapes_known(model):
            infer_shapes(model)
        fold_constants(model.ir, evaluate)
        choose_branches(model.ir)
