"""Which candidates become integer kernels: a fixpoint of demotions.

All candidates start as quantized; a rule that fails demotes a node to float with its reason, until no rule
fails. Demotion only ever removes nodes, so the result exists, is unique, and does not depend on the order.

Rules on a target that fuses Q/DQ (onnxruntime): a kernel without a float-output form needs an output that one
quantizer alone reads; elementwise kernels need all inputs as integers that exist anyway, and a reader that
wants integers; moved tensors need a reader that wants integers; max-pools need to stand between kernels.
Elsewhere only graph outputs are kept free of Q/DQ. On every target a tensor that the user leaves in float has
no kernel that reads it, and none that makes it unless its kind can give float.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from quantcli.graph.view import GraphView, NodeInfo, Use
from quantcli.ops.reasons import Reason
from quantcli.ops.spec import Trait
from quantcli.ops.table import lookup
from quantcli.ops.targets import Target
from quantcli.quantize.choice_rules import chosen_float
from quantcli.quantize.choices import Choices
from quantcli.quantize.kernels import Kernel
from quantcli.quantize.residual import convolution_of
from quantcli.quantize.stem import is_stem

_SELECTING = {
    "Slice", "Gather", "GatherElements", "GatherND", "Compress", "Split", "ReduceMax", "ReduceMin", "MaxPool",
    "GlobalMaxPool",
}  # fmt: skip
"""Moves that drop values: their input may range wider than their output."""

_DATA_MOVEMENT = {"Concat", "Identity", "Cast", "Pad"}
"""Further operators through which the noise of their input reaches their output unchanged.

Interpolation is none of them: it averages, and a float layer in front of it costs more than the noise.
"""


class Placement:
    """The set of kernels that are quantized, and the reasons of those that are not.

    Attributes:
        kernels: Quantized kernels by anchor name.
        reasons: Why a demoted kernel's anchor stays in float.
    """

    def __init__(
        self,
        view: GraphView,
        target: Target,
        candidates: Mapping[str, Kernel],
        known: Callable[[str], bool],
        choices: Choices | None = None,
        in_float: Collection[str] = (),
    ) -> None:
        self._view = view
        self._choices = choices or Choices()
        self._chosen_float = chosen_float(view, self._choices)
        self._target = target
        self._known = known
        self._in_float = frozenset(in_float)
        self._output_bound = self._find_output_bound()
        self._makers = {value: kernel for kernel in candidates.values() for value in kernel.outputs}
        self._order = [node.name for node in view.nodes if node.name in candidates]
        self.kernels = dict(candidates)
        self.reasons: dict[str, Reason] = {}
        rule = self._fusing_rule if target.fuses_qdq else self._plain_rule
        first = [self._choice_rule, rule]
        self._settle(first)
        # What is forbidden or unknown comes later: it mostly concerns what no rule wanted quantized.
        self._settle([*first, self._left_in_float])
        self._settle([*first, self._left_in_float, self._needs_statistics])

    def _settle(self, rules: Sequence[Callable[[Kernel], Reason | None]]) -> None:
        """Demote until no rule fails any more."""
        changed = True
        while changed:
            changed = False
            for name in reversed(self._order):
                kernel = self.kernels.get(name)
                reason = None if kernel is None else next(filter(None, (rule(kernel) for rule in rules)), None)
                if reason is not None:
                    del self.kernels[name]
                    self.reasons[name] = reason
                    changed = True

    # What neighbours offer and want ---------------------------------------------------------------

    def wants_integers(self, value: str) -> bool:
        """Whether a quantized kernel reads ``value`` as an activation."""
        return any(self.reads_integers(use.node, use.index) for use in self._view.uses(value))

    def reads_integers(self, node: NodeInfo, index: int) -> bool:
        """Whether ``node`` is quantized and its input ``index`` is an activation."""
        kernel = self.kernels.get(node.name)
        return kernel is not None and any(index == i for i, _ in kernel.inputs)

    def maker(self, value: str) -> Kernel | None:
        """The quantized kernel whose last value is ``value``."""
        kernel = self._makers.get(value)
        return kernel if kernel is not None and kernel.node.name in self.kernels else None

    def _exists_as_integers(self, value: str) -> bool:
        """Whether ``value`` is quantized for other reasons than the asking kernel."""
        kernel = self.maker(value)
        if kernel is not None and not self._target.support(kernel.row).float_output:
            return True
        return any(
            self.reads_integers(use.node, use.index) and self.kernels[use.node.name].weight
            for use in self._view.uses(value)
        )

    def _computed_as_integers(self, value: str) -> bool:
        """Whether a kernel that computes, not one that only moves, made ``value``."""
        kernel = self.maker(value)
        while kernel is not None and kernel.row.trait is Trait.PASSTHROUGH:
            kernel = self.maker(kernel.inputs[0][1])
        return kernel is not None

    def _find_output_bound(self) -> frozenset[str]:
        """Values that reach graph outputs, and nothing but graph outputs, through data movement.

        What a body yields moves into the output of its owner.
        """
        found: set[str] = set()
        for node in reversed(self._view.nodes):
            for value in filter(None, node.outputs):
                uses = self._view.uses(value)
                moved = bool(uses) and all(self._only_moved(use, found) for use in uses)
                if moved or self._view.tensors[value].is_output:
                    found.add(value)
        return frozenset(found)

    def _only_moved(self, use: Use, bound: Collection[str]) -> bool:
        """Whether all that a reading gives are values of ``bound``, which it moves its value into."""
        if use.yielded is not None:
            output = use.yielded.output
            return output >= 0 and use.node.outputs[output] in bound
        moves = use.index >= 0 and self._moves(use.node)
        return moves and all(output in bound for output in use.node.outputs if output)

    @staticmethod
    def _moves(node: NodeInfo) -> bool:
        row = lookup(node.domain, node.op_type)
        if row is None:
            return False
        if row.trait is Trait.PASSTHROUGH:
            if node.op_type == "Resize":
                return node.attributes.get("mode", "nearest") == "nearest"
            return node.op_type not in {"MaxPool", "ReduceMax", "ReduceMin", "GlobalMaxPool"}
        return node.op_type in _DATA_MOVEMENT

    # Rules ----------------------------------------------------------------------------------------

    def _choice_rule(self, kernel: Kernel) -> Reason | None:
        return self._chosen_float.get(kernel.node.name)

    def _left_in_float(self, kernel: Kernel) -> Reason | None:
        for _, value in kernel.inputs:
            if value in self._in_float:
                return Reason(code="F102", sentence=f"tensor '{value}' is left in float, and it reads that")
        if not self._target.support(kernel.row).float_output:
            for value in kernel.outputs:
                if value in self._in_float and not self._view.tensors[value].is_output:
                    return Reason(code="F102", sentence=f"tensor '{value}' is left in float, and it makes that")
        return None

    def _needs_statistics(self, kernel: Kernel) -> Reason | None:
        for _, value in kernel.inputs:
            if not self._has_range(value):
                return Reason(
                    code="F501", sentence=f"no statistics of '{value}', which it reads{self._unrun(kernel)}"
                )
        if (
            kernel.row.trait in {Trait.COMPUTE, Trait.OWN, Trait.SHARED}
            and not self._target.support(kernel.row).float_output
        ):
            for value in kernel.outputs:
                if not self._known(value) and not self._view.tensors[value].is_output:
                    return Reason(
                        code="F501", sentence=f"no statistics of '{value}', which it makes{self._unrun(kernel)}"
                    )
        return None

    @staticmethod
    def _unrun(kernel: Kernel) -> str:
        """The likely cause of missing statistics."""
        body = kernel.node.scope
        return f"; it may be that no sample runs '{body}'" if body else ""

    def _has_range(self, value: str) -> bool:
        """Whether calibration, or the definition of the operator that makes it, says the range of ``value``."""
        maker = self.maker(value)
        fixed = maker is not None and maker.row.trait is Trait.FIXED and not self._target.fuses_qdq
        return fixed or self._known(value)

    def _plain_rule(self, kernel: Kernel) -> Reason | None:
        if self._target.everything:
            return None
        if self._target.one_residual and kernel.node.op == "Add":
            joined = convolution_of(self._view, kernel.node)
            if joined is None or joined.name not in self.kernels:
                return Reason(code="F402", sentence="the convolution before it stays in float")
            return None
        if kernel.row.trait in {Trait.OWN, Trait.SHARED, Trait.FIXED, Trait.FUSED}:
            if not any(self._exists_as_integers(value) for _, value in kernel.inputs):
                return Reason(code="F402", sentence="none of its inputs exists as integers")
            if kernel.row.trait is Trait.SHARED and kernel.outputs[0] in self._output_bound:
                return Reason(code="F401", sentence="its result reaches an output through data movement only")
            return None
        moved = kernel.row.trait is Trait.PASSTHROUGH
        if moved and any(self._view.tensors[value].is_output for value in kernel.outputs):
            return Reason(code="F401", sentence="its result is an output of the graph")
        made = any(self._computed_as_integers(value) for _, value in kernel.inputs)
        if moved and not made and not any(self.wants_integers(value) for value in kernel.outputs):
            return Reason(code="F403", sentence="neither its source nor its readers are quantized")
        return None

    def _fusing_rule(self, kernel: Kernel) -> Reason | None:
        match kernel.row.trait:
            case Trait.COMPUTE:
                return self._compute_rule(kernel)
            case Trait.PASSTHROUGH:
                return self._passthrough_rule(kernel)
            case Trait.FUSED:
                return Reason(code="F405", sentence=f"no quantized kernel ends in this {kernel.node.op_type}")
            case _:
                return self._elementwise_rule(kernel)

    def _compute_rule(self, kernel: Kernel) -> Reason | None:
        if not kernel.weight and not all(self._exists_as_integers(value) for _, value in kernel.inputs):
            return Reason(code="F204", sentence="both operands of the product are activations")
        (output,) = kernel.outputs
        if self._target.support(kernel.row).float_output:
            # onnxruntime makes a float Gemm of a product with a bias whose result is an output and read as well
            shared = bool(kernel.bias) and self._view.tensors[output].is_output and self._view.uses(output)
            return self._needs_single_quantizer(output) if shared else None
        if self._choices.stem == "rule" and is_stem(self._view, kernel):
            return Reason(code="F207", sentence=f"{kernel.node.op_type} at the input of a depthwise network")
        if output in self._output_bound:
            return Reason(code="F401", sentence=f"'{output}' reaches an output through data movement only")
        return self._needs_single_quantizer(output)

    def _needs_single_quantizer(self, output: str) -> Reason | None:
        if self._view.tensors[output].is_output:
            return Reason(code="F405", sentence=f"'{output}' is an output of the graph as well")
        if any(use.index < 0 for use in self._view.uses(output)):
            return Reason(code="F405", sentence=f"'{output}' is read by the body of a node as well")
        if not self._view.uses(output):
            return Reason(code="F405", sentence=f"nobody reads '{output}'")
        return None

    def _elementwise_rule(self, kernel: Kernel) -> Reason | None:
        for _, value in kernel.inputs:
            if not self._exists_as_integers(value):
                return Reason(code="F402", sentence=f"its input '{value}' stays in float")
        (output,) = kernel.outputs
        if not self.wants_integers(output):
            return Reason(code="F403", sentence=f"nobody reads '{output}' as integers")
        return self._needs_single_quantizer(output)

    def _passthrough_rule(self, kernel: Kernel) -> Reason | None:
        (_, source), *_rest = kernel.inputs
        wanted = [value for value in kernel.outputs if self.wants_integers(value)]
        if not wanted:
            return Reason(code="F403", sentence="nobody reads its result as integers")
        for value in kernel.outputs:
            reason = self._needs_single_quantizer(value) if value in wanted else None
            if reason is not None or self._view.tensors[value].is_output:
                return reason or Reason(code="F405", sentence=f"'{value}' is an output of the graph as well")
        if kernel.node.op_type == "MaxPool":
            if self.maker(source) is None or not self._read_by_conv(kernel.outputs[0]):
                return Reason(code="F404", sentence="it does not stand between quantized convolutions")
        elif kernel.node.op_type in _SELECTING and self.maker(source) is None:
            readers = self._view.uses(source)
            if not all(self.reads_integers(use.node, use.index) for use in readers):
                return Reason(code="F402", sentence=f"its input '{source}' stays in float")
        return None

    def _read_by_conv(self, value: str) -> bool:
        return any(
            self.reads_integers(use.node, use.index) and use.node.op_type in {"Conv", "Concat", "MaxPool"}
            for use in self._view.uses(value)
        )
