"""Which versions the installed onnxruntime runs: it is asked, with models of one node.

The answers hold for the life of the process, and are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from quantcli.errors import RuntimeFailure
from quantcli.graph.preflight import DEFAULT_LIMITS, Limits
from quantcli.graph.version_probe import version_probe
from quantcli.runtime.session import Session, SessionSettings

_ALWAYS_OPSET = 13
_ALWAYS_IR = 7  # of opset 13; every onnxruntime that this package accepts runs both


@cache
def runnable_versions() -> Limits:
    """Versions that are known here and that the runtime loads."""
    known = DEFAULT_LIMITS
    return Limits(
        max_ir=_newest(range(_ALWAYS_IR, known.max_ir + 1), lambda ir: version_probe(_ALWAYS_OPSET, ir)),
        max_opset=_newest(
            range(_ALWAYS_OPSET, known.max_opset + 1), lambda opset: version_probe(opset, _ALWAYS_IR)
        ),
    )


@cache
def newest_quantized_opset() -> int:
    """Newest opset of ai.onnx at which the runtime has QuantizeLinear and DequantizeLinear.

    onnxruntime 1.32 loads opset 28 without kernels for these two; their newest are those of opset 25.
    """
    newest = runnable_versions().max_opset
    return _newest(
        range(_ALWAYS_OPSET, newest + 1), lambda opset: version_probe(opset, _ALWAYS_IR, quantized=True)
    )


def _newest(versions: Iterable[int], probe: Callable[[int], bytes]) -> int:
    """The newest version whose probe loads; the oldest where none does, so that the model itself is tried."""
    found = sorted(versions, reverse=True)
    return next((version for version in found if _loads(probe(version))), found[-1])


def _loads(model: bytes) -> bool:
    try:
        Session(model, SessionSettings(optimization="disabled"))
    except RuntimeFailure:
        return False
    return True
