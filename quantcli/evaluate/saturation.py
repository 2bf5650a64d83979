"""Which layers can saturate on an x86 CPU without VNNI, proved from the weights (``core.saturation``)."""

from __future__ import annotations

from collections.abc import Sequence

from quantcli.core.saturation import pair_bound
from quantcli.evaluate.integer_layers import IntegerLayer
from quantcli.report.schema import Saturation, SaturationRisk


def prove_saturation(layers: Sequence[IntegerLayer]) -> Saturation | None:
    """What the weights of ``layers`` allow; None without layers."""
    if not layers:
        return None
    risks = []
    for layer in layers:
        if layer.depthwise:
            continue
        bound = pair_bound(layer.weight)
        if bound.channels:
            risks.append(
                SaturationRisk(
                    node=layer.node,
                    op=layer.op,
                    worst_pair=bound.worst,
                    channels=bound.channels,
                    of=layer.weight.shape[0],
                )
            )
    risks.sort(key=lambda risk: (-abs(risk.worst_pair), -risk.channels / risk.of, risk.node))
    return Saturation(layers=len(layers), safe=len(layers) - len(risks), risks=tuple(risks))
