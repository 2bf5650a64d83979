"""The ONNX backend suite, about 2 000 models, through load, view, edit and save."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.loader import load_model_tests
from onnx_text import run

from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.preflight import DEFAULT_LIMITS, Limits

pytestmark = pytest.mark.filterwarnings("ignore")  # making the cases overflows on purpose

ANY_VERSION = Limits(min_ir=1, max_ir=99, min_opset=1, max_opset=99)


@cache
def suite() -> tuple[tuple[str, bytes, Any], ...]:
    cases = []
    for kind in ("node", "simple", "pytorch-converted", "pytorch-operator"):
        for case in load_model_tests(kind=kind):
            data = (
                case.model.SerializeToString()
                if case.model is not None
                else (Path(case.model_dir) / "model.onnx").read_bytes()
            )
            cases.append((case.name, data, case))
    return tuple(cases)


def plain(message: Any) -> Any:
    """A message as dicts and lists, with what has no meaning levelled.

    Empty text is absent text; "ai.onnx" is ""; the order of value infos and of opset imports is free, and
    so are value infos of initializers, which repeat what the initializers say.
    """
    if isinstance(message, float):
        return "nan" if math.isnan(message) else message
    if not hasattr(message, "ListFields"):
        return message
    result: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name == "value_info":
            result[field.name] = {item.name: plain(item) for item in value}
        elif field.name == "opset_import":
            result[field.name] = {item.domain.replace("ai.onnx", ""): item.version for item in value}
        elif field.is_repeated:
            result[field.name] = [plain(item) for item in value]
        elif value != "" and not (field.name == "domain" and value == "ai.onnx"):
            result[field.name] = plain(value)
    if isinstance(message, onnx.GraphProto):
        constants = {tensor.name for tensor in message.initializer}
        infos = result.get("value_info", {})
        result["value_info"] = {name: info for name, info in infos.items() if name not in constants}
    return result


@cache
def loaded() -> dict[str, OnnxModel]:
    return {name: load_model_bytes(data, limits=ANY_VERSION) for name, data, _ in suite()}


def named(name: str) -> OnnxModel:
    """A copy of a model with names for its nodes."""
    model = loaded()[name].clone()
    for index, node in enumerate(model.ir.graph):
        node.name = f"node_{index}"
    return model


def add_identities(model: OnnxModel) -> list[str]:
    """Put an Identity behind every value of the graph that a node reads; names of the nodes."""
    view = model.view()
    editor = GraphEditor(model)
    added = []
    for name in sorted(view.tensors):
        uses = [(use.node.name, use.index) for use in view.uses(name) if use.index >= 0]
        if uses:
            copied = editor.new_value_name(name)
            added.append(editor.add_node("Identity", [name], [copied], name="copy"))
            editor.replace_uses(name, copied, uses=uses)
    editor.finish()
    return added


def test_every_model_is_written_as_it_was_read() -> None:
    assert len(suite()) > 1900
    for name, data, _ in suite():
        written = loaded()[name].to_bytes()
        assert plain(onnx.ModelProto.FromString(written)) == plain(onnx.ModelProto.FromString(data)), name


def test_a_clone_is_written_as_its_original_for_every_model() -> None:
    for name, model in loaded().items():
        assert model.clone().to_bytes() == model.to_bytes(), name


def test_an_editor_that_edits_nothing_changes_nothing() -> None:
    for name in loaded():
        model = named(name)
        before = model.to_bytes()
        GraphEditor(model).finish()
        assert model.to_bytes() == before, name


def test_identities_added_and_bypassed_leave_every_model_as_it_was() -> None:
    for name in loaded():
        model = named(name)
        before = model.to_bytes()
        added = add_identities(model)
        editor = GraphEditor(model)
        for node in added:
            editor.bypass_node(node)
        editor.finish()
        assert model.to_bytes() == before, name


RANDOM = {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniformLike"}

MASKED_SCORES = "qk_matmul"
"""Attention that gives its scores away: onnxruntime 1.32 fills masked ones with the least float or with −inf,
depending on the opset."""


def runnable() -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Models that onnxruntime may run and that give the same twice, with their inputs."""
    for name, data, case in suite():
        if case.data_sets is None:
            continue
        message = onnx.ModelProto.FromString(data)
        newest = max((entry.version for entry in message.opset_import if not entry.domain), default=0)
        if not 14 <= newest <= DEFAULT_LIMITS.max_opset or message.ir_version > DEFAULT_LIMITS.max_ir:
            continue  # Identity takes sequences from 14 on
        if RANDOM.isdisjoint(node.op_type for node in message.graph.node):
            inputs = [value.name for value in message.graph.input]
            yield name, data, dict(zip(inputs, case.data_sets[0][0], strict=False))


def check_equal(got: Any, want: Any, name: str, *, other_kernel: bool = False) -> None:
    """``other_kernel``: the runtime may choose another one, whose float32 sums have another order."""
    if isinstance(want, list):
        assert len(got) == len(want), name
        for left, right in zip(got, want, strict=True):
            check_equal(left, right, name, other_kernel=other_kernel)
    elif other_kernel and getattr(want, "dtype", None) == np.float32:
        # Sums of a few dozen terms of size 1: a rounding each.
        np.testing.assert_allclose(got, want, rtol=32 * 2.0**-24, atol=32 * 2.0**-24, err_msg=name)
    elif getattr(want, "dtype", None) == np.float16:
        # onnxruntime computes in float32 and rounds between nodes: a node more, a rounding more.
        np.testing.assert_allclose(got, want, rtol=4 * 2.0**-11, atol=2.0**-11, err_msg=name)
    else:
        np.testing.assert_array_equal(got, want, err_msg=name)


def test_identities_do_not_change_what_models_compute() -> None:
    checked = 0
    for name, data, feeds in runnable():
        try:
            expected = run(data, feeds)
        except Exception:  # noqa: BLE001 — an operator or a type that onnxruntime lacks
            continue
        model = named(name)
        add_identities(model)
        for got, want in zip(run(model, feeds), expected, strict=True):
            check_equal(got, want, name)
        checked += 1
    assert checked > 800
