"""Which quantized values have the same parameters: a union-find over the constraints.

Constraints have the field's names: *shared* joins the two sides of an operator that moves values (Reshape,
MaxPool, …) and, where it is legal, the inputs of a Concat with its output; everything else has its *own*
parameters, *fixed* ones (known from the operator), or *derived* ones (a bias: s_x·s_w).

An input joins its Concat only if nothing else reads it (its finer scale would be lost there) and if all
members have the same fused activation: a wider range behind a Relu would keep the Relu from being part of
the kernel. Joining removes one rounding: the noise of the Concat is step²/12 once, not twice.
"""

from __future__ import annotations

from quantcli.graph.view import GraphView
from quantcli.ops.spec import Trait
from quantcli.ops.targets import Target
from quantcli.quantize.kernels import Kernel
from quantcli.quantize.placement import Placement


class SharingGroups:
    """Roots of the sharing groups. The root is the member that is made first."""

    def __init__(self, view: GraphView, placement: Placement, target: Target) -> None:
        self._view = view
        self._placement = placement
        self._target = target
        self._parent: dict[str, str] = {}
        self._order = {value: index for index, value in enumerate(view.values)}
        for kernel in placement.kernels.values():
            if kernel.row.trait is Trait.PASSTHROUGH:
                for value in kernel.outputs:
                    self._join(kernel.inputs[0][1], value)
            elif kernel.row.trait is Trait.SHARED:
                self._join_concat(kernel)

    def root(self, value: str) -> str:
        """The member of the group of ``value`` that is made first."""
        while self._parent.get(value, value) != value:
            value = self._parent[value]
        return value

    def _join(self, a: str, b: str) -> None:
        first, second = sorted((self.root(a), self.root(b)), key=self._order.__getitem__)
        self._parent[second] = first

    def _join_concat(self, kernel: Kernel) -> None:
        (output,) = kernel.outputs
        if kernel.activation is not None:
            return
        bounds = {self._bounds(value) for _, value in kernel.inputs}
        if len(bounds) > 1:
            return
        for _, value in kernel.inputs:
            if self._read_here_only(value):
                self._join(value, output)

    def _read_here_only(self, value: str) -> bool:
        """Whether a kernel makes ``value`` and nothing else reads it, nor what it was moved from."""
        maker = self._placement.maker(value)
        while len(self._view.uses(value)) == 1 and maker is not None and len(maker.outputs) == 1:
            if maker.row.trait is not Trait.PASSTHROUGH:
                return True
            value = maker.inputs[0][1]
            maker = self._placement.maker(value)
        return False

    def _bounds(self, value: str) -> tuple[float, float] | None:
        """Bounds of the fused activation whose result ``value`` is, through moves."""
        maker = self._placement.maker(value)
        while maker is not None and maker.row.trait is Trait.PASSTHROUGH:
            maker = self._placement.maker(maker.inputs[0][1])
        if maker is None or maker.activation is None:
            return None
        return maker.activation.low, maker.activation.high
