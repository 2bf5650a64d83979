"""QDQ emission for targets that run some operators on integers, but make nothing of Q/DQ around them.

Such operators only move values (``Support.direct`` in the operator table). They are written on the integers
themselves, Q → Pad → DQ in place of Q → DQ → Pad → Q → DQ, which is the same: input and output have the same
parameters. All else is in QDQ form.
"""

from __future__ import annotations

from quantcli.graph.view import NodeInfo
from quantcli.quantize.emit_qoperator import QOperatorEmitter


class DirectQdqEmitter(QOperatorEmitter):
    """Writes Q/DQ nodes, and moves of integers, through an editor."""

    def _can_spell(self, node: NodeInfo) -> bool:
        return self._target.support(self._row(node)).direct and super()._can_spell(node)
