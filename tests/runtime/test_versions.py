"""The installed onnxruntime says which versions it runs."""

from __future__ import annotations

import onnxruntime as ort
import pytest
from onnx import defs

from quantcli.errors import RuntimeFailure
from quantcli.graph.preflight import DEFAULT_LIMITS
from quantcli.graph.version_probe import version_probe
from quantcli.runtime.session import Session
from quantcli.runtime.versions import newest_quantized_opset, runnable_versions


def test_the_newest_versions_load_and_the_next_do_not() -> None:
    limits = runnable_versions()
    Session(version_probe(limits.max_opset, limits.max_ir))
    for opset, ir_version in ((limits.max_opset + 1, limits.max_ir), (limits.max_opset, limits.max_ir + 1)):
        with pytest.raises(RuntimeFailure):
            Session(version_probe(opset, ir_version))


def test_no_more_is_accepted_than_is_known_here() -> None:
    limits, known = runnable_versions(), DEFAULT_LIMITS
    assert (limits.min_ir, limits.min_opset) == (known.min_ir, known.min_opset)
    assert limits.max_ir <= known.max_ir
    assert limits.max_opset <= known.max_opset == defs.onnx_opset_version()


def test_quantizers_exist_at_the_opset_that_is_said() -> None:
    newest = newest_quantized_opset()
    Session(version_probe(newest, 10, quantized=True))
    if newest < runnable_versions().max_opset:
        with pytest.raises(RuntimeFailure, match="QuantizeLinear"):
            Session(version_probe(newest + 1, 10, quantized=True))


def test_a_runtime_that_loads_nothing_leaves_the_model_itself_to_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    runnable_versions.cache_clear()
    monkeypatch.setattr(ort, "InferenceSession", refuse)
    try:
        assert runnable_versions().max_opset == 13
    finally:
        runnable_versions.cache_clear()
