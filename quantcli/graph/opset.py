"""Raising the ai.onnx opset of a model, names and meaning kept.

Version by version, each node whose operator changes incompatibly is rewritten by its adapter
(``opset_adapters``); all others are valid as they are. onnx.version_converter is not used: it drops the
bodies of If, Loop and Scan and the names of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx.helper
import onnx_ir as ir

from quantcli.errors import UnsupportedModelError
from quantcli.graph.model import OnnxModel
from quantcli.graph.opset_adapters import ADAPTERS
from quantcli.graph.opset_rewrite import CannotRaise, Rewriter
from quantcli.graph.shapes import inferred_types
from quantcli.graph.traverse import nested_graphs

NEWEST_OPSET = 28
"""Up to here the changes of operators are known."""

_IR_WITH_FREE_INITIALIZERS = 4  # from here on initializers need not be listed as inputs
_OLDEST_KNOWN = 7


def min_ir_version(opset: int) -> int:
    """The IR version of the onnx release that brought ``opset`` of ai.onnx, at least 4.

    A runtime that knows the opset was built with that release or a later one, so that it reads its IR version.

    Raises:
        ValueError: There is no such opset.
    """
    known = {row[2]: row[1] for row in reversed(onnx.helper.VERSION_TABLE)}
    if opset not in known:
        raise ValueError(f"there is no opset {opset}")
    return max(known[opset], _IR_WITH_FREE_INITIALIZERS)


def upgrade_opset(model: OnnxModel, target: int) -> None:
    """Raise ai.onnx to ``target`` in place, in all graphs, bodies and functions.

    Nodes and values keep their names; new ones have names of their own. The IR version is raised as the
    opset needs it, and imports of domains that no node uses are dropped. Large tensors are not read.

    Args:
        model: A model of opset 7 or newer; it stays as it was on failure.
        target: 8 to ``NEWEST_OPSET``, not below what the model has.

    Raises:
        UnsupportedModelError: A node has no exact form in the new opset (M210).
        ValueError: ``target`` is not such a version.
    """
    if not max(model.opset, _OLDEST_KNOWN) <= target <= NEWEST_OPSET:
        raise ValueError(f"cannot raise opset {model.opset} to {target}")
    if any(version < target for version in _versions(model)):
        if _anything_changes(model, target):
            _rewrite(model.clone(), target)  # a rehearsal, so that a refusal leaves the model as it was
            _rewrite(model, target)
        for function in model.ir.functions.values():
            if "" in function.opset_imports:
                function.opset_imports[""] = max(target, function.opset_imports[""])
    model.ir.opset_imports[""] = target
    model.ir_version = max(model.ir_version, min_ir_version(target))
    _drop_unused_imports(model)


def _versions(model: OnnxModel) -> list[int]:
    functions = [
        function.opset_imports[""] for function in model.ir.functions.values() if "" in function.opset_imports
    ]
    return [model.opset, *functions]


def _anything_changes(model: OnnxModel, target: int) -> bool:
    """Whether a node has an adapter on the way to ``target``; without one there is nothing to infer or rewrite."""
    oldest = min(version for version in _versions(model))
    return any(
        (node.op_type, version) in ADAPTERS
        for graph in _graphs(model)
        for node in graph
        if node.domain == ""
        for version in range(oldest + 1, target + 1)
    )


def _rewrite(model: OnnxModel, target: int) -> None:
    rewriter = Rewriter(model, inferred_types(model))
    _raise_graph(rewriter, model.ir.graph, model.opset, target)
    for function in model.ir.functions.values():
        if "" in function.opset_imports:
            _raise_graph(rewriter, function.graph, function.opset_imports[""], target)


def _raise_graph(rewriter: Rewriter, graph: ir.Graph, current: int, target: int) -> None:
    for version in range(max(current, 1) + 1, target + 1):
        for node in [node for nested in nested_graphs(graph) for node in nested]:
            adapter = ADAPTERS.get((node.op_type, version)) if node.domain == "" else None
            if adapter is None:
                continue
            try:
                adapter(rewriter, node)
            except CannotRaise as error:
                raise UnsupportedModelError(
                    "M210",
                    f"operator {node.op_type} of node '{node.name}' cannot be raised from opset {version - 1} to "
                    f"{version}: {error}",
                    hint=f"export the model again for opset {target}",
                ) from error


def _drop_unused_imports(model: OnnxModel) -> None:
    used = {""} | {node.domain for graph in _graphs(model) for node in graph}
    for domain in sorted(set(model.ir.opset_imports) - used):
        del model.ir.opset_imports[domain]


def _graphs(model: OnnxModel) -> Iterator[ir.Graph]:
    yield from nested_graphs(model.ir.graph)
    for function in model.ir.functions.values():
        yield from nested_graphs(function.graph)
