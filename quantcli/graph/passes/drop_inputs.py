"""Initializers that are listed as graph inputs are inputs no longer.

IR versions below 4 list every initializer as an input, which makes it a default that a caller may override;
a runtime cannot treat such a value as a constant. Weights are constants here.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveInitializersFromInputsPass

_LISTED_ALWAYS = 3
"""Up to this IR version every initializer must be listed, so that it says nothing about the user's wish."""


def drop_initializers_from_inputs(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; tells of inputs with a default, which cannot be overridden any more."""
    named = [value.name for value in model.graph.inputs if value.is_initializer()]
    RemoveInitializersFromInputsPass()(model)
    if not named or model.ir_version <= _LISTED_ALWAYS:
        return ()
    return (f"{len(named)} inputs with default values are constants now (first: '{named[0]}')",)
