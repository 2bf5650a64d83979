"""A graph that computes what each part of a quantization adds to the error of an output.

The graph is the quantized network, simulated: activations are rounded where the plan says so, constants are
those of the integers, and kernels compute in float. To first order the error of an output is a sum over parts
p, e = Σ_p J_p δ_p, where δ_p is what a part changes where it acts (x̂ − x of a rounded activation; the layer
applied to Ŵ − W for a weight) and J_p the derivative of the output there. Both are taken where the quantized
network is: where that is more than a step away from the float one, roundings fall anew. Rounding itself has the
derivative 1 inside its range and 0 outside. For a seed v of the output's shape the graph gives, for all parts
in one run,

    u_p = ⟨v, J_p δ_p⟩ = ⟨J_pᵀ v, δ_p⟩

from one walk backwards (``graph.adjoint``). With v = e that is the part's share of ‖e‖²; with random v of
independent entries ±1, E[(Σ_{p∈F} u_p)²] = ‖Σ_{p∈F} e_p‖² for every set F of parts (Hutchinson 1990).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantcli.graph.adjoint import OPSET, Gradients, gradients
from quantcli.graph.adjoint_rules import NoRule
from quantcli.graph.edit import GraphEditor
from quantcli.graph.extract import Reading
from quantcli.graph.model import OnnxModel
from quantcli.graph.opset import upgrade_opset
from quantcli.graph.tape import Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """An activation that is rounded.

    Attributes:
        value: Its name.
        readings: Those that see it rounded.
        scale: float32 scalar.
        zero_point: Integer scalar.
    """

    value: str
    readings: tuple[Reading, ...]
    scale: np.ndarray
    zero_point: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Constants that become others.

    Attributes:
        differences: Reading of a constant → float32, new minus old; an absent input counts as 0.
    """

    differences: Mapping[Reading, np.ndarray]


Part = Rounding | Change


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseProbe:
    """The graph.

    Attributes:
        model: Computes the float outputs, and the two vectors.
        reference: Input for what the float model gives; the first seed is the output minus that.
        seed: Input for the second seed.
        along_error: Output, float32 (parts,): u of the first seed.
        along_seed: The same of the second seed.
        parts: Keys of the parts, in the order of these vectors.
        unknown: Keys of parts on whose way to the output there is an operator without a rule.
    """

    model: OnnxModel
    reference: str
    seed: str
    along_error: str
    along_seed: str
    parts: tuple[str, ...]
    unknown: tuple[str, ...]


def raised(model: OnnxModel) -> OnnxModel:
    """A copy of ``model`` at the opset in which gradients are written.

    Raises:
        UnsupportedModelError: M210, a node has no form in that opset.
    """
    copy = model.clone()
    if copy.opset < OPSET:
        upgrade_opset(copy, OPSET)
    return copy


def simulate(model: OnnxModel, parts: Mapping[str, Part]) -> dict[str, str]:
    """Make ``model`` the quantized network, in place.

    Args:
        model: The float graph, as ``raised`` gives it.
        parts: All parts of the quantization.

    Returns:
        Activation → its rounded form.
    """
    editor = GraphEditor(model)
    view = model.view()
    rounded = {}
    for part in parts.values():
        if isinstance(part, Rounding):
            pair = [
                editor.add_initializer(f"{part.value}_{name}", array)
                for name, array in (("scale", part.scale), ("zero_point", part.zero_point))
            ]
            integers = editor.new_value_name(f"{part.value}_integers")
            result = editor.new_value_name(f"{part.value}_rounded")
            name = f"{part.value}_round"
            editor.add_node("QuantizeLinear", [part.value, *pair], [integers], name=name)
            editor.add_node("DequantizeLinear", [integers, *pair], [result], name=f"{name}ed")
            editor.replace_uses(part.value, result, uses=part.readings)
            rounded[part.value] = result
            continue
        for (node, index), difference in sorted(part.differences.items()):
            old = view.node_by_name[node].input(index)
            new = difference + view.constant(old) if old else difference
            editor.set_input(node, index, editor.add_initializer(f"{node}_{index}_seen", new.astype(np.float32)))
    editor.finish()
    return rounded


def noise_probe(
    model: OnnxModel,
    rounded: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    output: str,
    parts: Mapping[str, Part],
) -> NoiseProbe:
    """Build the graph.

    Args:
        model: As ``simulate`` makes it; it is changed.
        rounded: What that gave.
        shapes: Shape of every float value for the samples that will be run.
        output: A float32 output.
        parts: By keys of the caller's choice.
    """
    tape = Tape(model, shapes)
    y = tape.value(output)
    reference, seed = tape.input("reference"), tape.input("seed")
    found = [
        gradients(tape, model, output, tape.op("Sub", [y, reference])),
        gradients(tape, model, output, tape.op("Identity", [seed])),
    ]
    writer = _Writer(tape, rounded)
    rows: dict[str, list[ir.Value]] = {}
    unknown = []
    for key, part in parts.items():
        try:
            effects = list(writer.effects(part, found[0].blocked))
        except NoRule:
            unknown.append(key)
            continue
        rows[key] = [writer.product(effects, one) for one in found]
    keys = tuple(rows)
    vectors = [
        tape.op("Concat", [rows[key][number] for key in keys] or [tape.constant(np.zeros(0, np.float32))], axis=0)
        for number in range(2)
    ]
    names = [tape.output(vector) for vector in vectors]
    return NoiseProbe(
        model=model,
        reference=str(reference.name),
        seed=str(seed.name),
        along_error=names[0],
        along_seed=names[1],
        parts=keys,
        unknown=tuple(unknown),
    )


_Effect = tuple[ir.Value, str]
"""δ, and the value whose gradient it meets."""


class _Writer:
    def __init__(self, tape: Tape, rounded: Mapping[str, str]) -> None:
        self._tape, self._rounded = tape, rounded
        self._nodes = {str(node.name): node for node in tape.nodes}

    def effects(self, part: Part, blocked: frozenset[str]) -> Iterator[_Effect]:
        """What a part changes.

        Raises:
            NoRule: The gradient there is not known.
        """
        tape = self._tape
        if isinstance(part, Rounding):
            result = self._rounded[part.value]
            if result in blocked:
                raise NoRule
            yield tape.op("Sub", [tape.value(result), tape.value(part.value)]), result
            return
        by_node: dict[str, dict[int, np.ndarray]] = {}
        for (node, index), difference in part.differences.items():
            by_node.setdefault(node, {})[index] = difference
        for name, changes in by_node.items():
            result = self._results(name)[0]
            if result in blocked:
                raise NoRule
            yield self._response(self._nodes[name], changes), result

    def product(self, effects: Sequence[_Effect], found: Gradients) -> ir.Value:
        """float32 (1,): Σ of the gradients times the effects."""
        tape = self._tape
        sums = []
        for delta, value in effects:
            grad = found.values.get(value)
            if grad is not None:
                sums.append(tape.op("ReduceSum", [tape.op("Mul", [grad, delta])], keepdims=0))
        added = tape.total(sums)
        if added is None:
            return tape.constant(np.zeros(1, np.float32))
        return tape.op("Reshape", [added, tape.ints(1)])

    def _results(self, node: str) -> list[str]:
        return [str(value.name) for value in self._nodes[node].outputs if value.name]

    def _response(self, node: ir.Node, changes: Mapping[int, np.ndarray]) -> ir.Value:
        """The change of a node's output, to first order.

        Raises:
            NoRule: It is not known for this operator.
        """
        tape = self._tape
        given = {index: tape.constant(np.ascontiguousarray(array)) for index, array in changes.items()}
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and set(given) <= {1, 2} and 1 in given:
            inputs = [node.inputs[0], given[1], *([given[2]] if 2 in given else [])]
            return tape.like(node.op_type, inputs, list(node.attributes.values()), node.domain)
        if len(given) != 1:
            raise NoRule
        ((index, difference),) = given.items()
        match node.op_type, index:
            case ("Add" | "Sum", _) | ("Sub", 0):
                return difference
            case "Sub", 1:
                return tape.op("Neg", [difference])
            case "Mul", _:
                return tape.op("Mul", [node.inputs[1 - index], difference])
            case "Gather", 0:
                return tape.like("Gather", [difference, node.inputs[1]], list(node.attributes.values()))
        raise NoRule
