"""Checks on the raw protobuf message, before onnx-ir sees it.

onnx-ir drops ``training_info`` and ``sparse_initializer`` without a word, and logs where it should refuse
(inputs that nothing produces, outputs that no node makes). Here such models get an error with a code, and
nothing is ever dropped silently. Weights are not touched.

Not checked: what onnxruntime checks anyway with a message of its own (operators, attributes, shapes).
Graphs need not be sorted, as for onnxruntime; names of bodies may hide outer ones, as for onnxruntime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx

from quantcli.errors import ModelError, UnsupportedModelError

_AI_ONNX = ("", "ai.onnx")
_EMPTY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Versions that are accepted; the newest that can be run depend on the installed onnxruntime.

    Attributes:
        min_ir: Oldest IR version; 3 is the first with operator-set imports.
        max_ir: Newest IR version.
        min_opset: Oldest ai.onnx; 7 is the oldest that onnxruntime guarantees to run.
        max_opset: Newest ai.onnx.
    """

    min_ir: int = 3
    max_ir: int = 14
    min_opset: int = 7
    max_opset: int = 28


DEFAULT_LIMITS = Limits()
"""What is known here, of onnx 1.23. What can be run is asked of the runtime (``runtime.versions``)."""


def check_proto(proto: onnx.ModelProto, limits: Limits = DEFAULT_LIMITS) -> None:
    """Refuse what cannot be handled or preserved.

    Raises:
        UnsupportedModelError: Training information (M201), sparse tensors (M202), map types (M203), text
            that is not UTF-8 (M204).
        ModelError: The model is not valid (M102), or its versions are out of ``limits`` (M105).
    """
    _check_versions(proto, limits)
    if proto.training_info:
        raise UnsupportedModelError(
            "M201",
            "the model carries training information, which would be lost",
            hint="export the model for inference",
        )
    if not proto.graph.node:
        raise _invalid("the graph has no nodes")
    if not proto.graph.output:
        raise _invalid("the graph has no outputs")
    _check_graph(proto.graph, _EMPTY, "the graph")
    for function in proto.functions:
        where = f"function '{function.name}'"
        known = _check_names([function.input], function.node, where)
        _check_types(function.value_info)
        _check_nodes(function.node, known, where)
        for name in function.output:
            if name not in known:
                raise _invalid(f"output '{name}' of {where} is not produced in it")


def _check_versions(proto: onnx.ModelProto, limits: Limits) -> None:
    if not limits.min_ir <= proto.ir_version <= limits.max_ir:
        raise ModelError(
            "M105",
            f"the model has IR version {proto.ir_version}; versions {limits.min_ir} to {limits.max_ir} are "
            "supported",
            hint=_version_hint(proto.ir_version < limits.min_ir),
        )
    if not proto.opset_import:
        raise _invalid("it imports no operator set", hint="the file may be cut off; copy or export it again")
    versions = {entry.version for entry in proto.opset_import if entry.domain in _AI_ONNX}
    if len(versions) > 1:
        raise _invalid(f"it imports ai.onnx in versions {sorted(versions)} at once")
    for version in versions:
        if not limits.min_opset <= version <= limits.max_opset:
            raise ModelError(
                "M105",
                f"the model uses ai.onnx opset {version}; opsets {limits.min_opset} to {limits.max_opset} "
                "are supported",
                hint=_version_hint(version < limits.min_opset),
            )


def _version_hint(too_old: bool) -> str:
    if too_old:
        return "export the model again, or raise its version with onnx.version_converter"
    return "export the model for an older version, or install a newer onnxruntime and quantcli"


def _check_graph(graph: onnx.GraphProto, outer: frozenset[str], where: str) -> None:
    if graph.sparse_initializer:
        raise UnsupportedModelError(
            "M202",
            f"{where} has sparse initializers, which would be lost",
            hint="store them as dense tensors",
        )
    initializers = [tensor.name for tensor in graph.initializer]
    if "" in initializers:
        raise _invalid(f"an initializer of {where} has no name")
    inputs = [value.name for value in graph.input]
    only_initializers = [name for name in initializers if name not in set(inputs)]
    _check_unique(initializers, f"initializers of {where}")
    own = _check_names([inputs, only_initializers], graph.node, where)
    for value in graph.output:
        if value.name not in own:
            raise _invalid(
                f"output '{value.name}' of {where} is not produced in it",
                hint="put an Identity node between the outer value and the output"
                if value.name in outer
                else None,
            )
    for values in (graph.input, graph.output, graph.value_info):
        _check_types(values)
    _check_nodes(graph.node, outer | own, where)


def _check_names(given: Iterable[Sequence[str]], nodes: Iterable[onnx.NodeProto], where: str) -> frozenset[str]:
    """The names that a graph defines, checked to be defined once each."""
    names = [name for group in given for name in group]
    names += [name for node in nodes for name in node.output if name]
    _check_unique(names, where)
    return frozenset(names)


def _check_unique(names: Iterable[str], where: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise _invalid(f"'{name}' is defined {count} times in {where}")


def _check_nodes(nodes: Iterable[onnx.NodeProto], known: frozenset[str], where: str) -> None:
    for node in nodes:
        label = f"{node.op_type} node '{node.name}'" if node.name else f"a {node.op_type} node"
        for name in node.input:
            if name and name not in known:
                raise _invalid(f"{label} in {where} reads '{name}', which nothing produces")
        for attribute in node.attribute:
            if not attribute.ref_attr_name:
                _check_attribute(attribute, known, label)


def _check_attribute(attribute: onnx.AttributeProto, known: frozenset[str], label: str) -> None:
    kind = attribute.type
    what = f"attribute '{attribute.name}' of {label}"
    if kind == onnx.AttributeProto.UNDEFINED:
        raise _invalid(f"{what} has no type")
    if kind in (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS):
        raise UnsupportedModelError(
            "M202", f"{what} is a sparse tensor, which would be lost", hint="store it as a dense tensor"
        )
    if kind == onnx.AttributeProto.TYPE_PROTO:
        _refuse_maps(attribute.tp, what)
    for type_proto in attribute.type_protos:
        _refuse_maps(type_proto, what)
    for text in (attribute.s, *attribute.strings):
        if not _is_utf8(text):
            raise UnsupportedModelError(
                "M204", f"{what} is text that is not UTF-8", hint="store bytes in a tensor"
            )
    for body in _bodies(attribute):
        _check_graph(body, known, f"body '{body.name}' of {label}")


def _bodies(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.type == onnx.AttributeProto.GRAPH:
        yield attribute.g
    yield from attribute.graphs


def _check_types(values: Iterable[onnx.ValueInfoProto]) -> None:
    for value in values:
        _refuse_maps(value.type, f"value '{value.name}'")


def _refuse_maps(type_proto: onnx.TypeProto, what: str) -> None:
    kind = type_proto.WhichOneof("value")
    if kind == "map_type":
        raise UnsupportedModelError(
            "M203",
            f"{what} is a map, which cannot be preserved",
            hint="export without ZipMap (skl2onnx: options={'zipmap': False})",
        )
    if kind == "sequence_type":
        _refuse_maps(type_proto.sequence_type.elem_type, what)
    elif kind == "optional_type":
        _refuse_maps(type_proto.optional_type.elem_type, what)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _invalid(what: str, hint: str | None = None) -> ModelError:
    return ModelError(
        "M102", f"the model is not valid: {what}", hint=hint or "check it with onnx.checker and export it again"
    )
