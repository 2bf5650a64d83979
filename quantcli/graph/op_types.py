"""Which inputs and outputs of an operator may carry another float type, by the ONNX specification.

An operator's schema gives each input and output a concrete type or a type variable with the types that it may
stand for. A value may become ``float16`` where its variable allows that; all values of one variable change
together. Schemas are those of the installed onnx; operators of other domains are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from onnx import defs

_ONNX_NAMES = {"float32": "float", "float64": "double"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PortTypes:
    """What the specification says of one operator's inputs or outputs and one element type.

    Attributes:
        variables: Type variable of each formal input or output ("" for a concrete type).
        allowed: Whether its variable may stand for the element type.
        variadic: Whether the last one stands for any number.
    """

    variables: tuple[str, ...]
    allowed: tuple[bool, ...]
    variadic: bool

    def _place(self, index: int) -> int:
        last = len(self.variables) - 1
        return min(index, last) if self.variadic else index

    def allows(self, index: int) -> bool:
        """Whether port ``index`` may carry the type."""
        place = self._place(index)
        return place < len(self.allowed) and self.allowed[place]

    def variable(self, index: int) -> str:
        """Type variable of port ``index``, "" for none."""
        place = self._place(index)
        return self.variables[place] if place < len(self.variables) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTypes:
    """Inputs and outputs of an operator."""

    inputs: PortTypes
    outputs: PortTypes


@cache
def operator_types(domain: str, op_type: str, opset: int, dtype: str) -> OperatorTypes | None:
    """What an operator of ``opset`` allows for ``dtype`` (numpy's name); None for one that onnx does not know."""
    try:
        schema = defs.get_schema(op_type, opset, domain)
    except defs.SchemaError:
        return None
    wanted = f"tensor({_ONNX_NAMES.get(dtype, dtype)})"
    types = {entry.type_param_str: frozenset(entry.allowed_type_strs) for entry in schema.type_constraints}
    return OperatorTypes(
        inputs=_ports(schema.inputs, types, wanted), outputs=_ports(schema.outputs, types, wanted)
    )


def _ports(
    formal: Sequence[defs.OpSchema.FormalParameter], types: dict[str, frozenset[str]], wanted: str
) -> PortTypes:
    found = [types.get(port.type_str, frozenset({port.type_str})) for port in formal]
    last = formal[-1].option if formal else None
    return PortTypes(
        variables=tuple(port.type_str if port.type_str in types else "" for port in formal),
        allowed=tuple(
            port.type_str in types and wanted in allowed for port, allowed in zip(formal, found, strict=True)
        ),
        variadic=last is not None and last == defs.OpSchema.FormalParameterOption.Variadic,
    )
