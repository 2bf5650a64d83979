"""Weights as matrices and back, and values per output."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import graph

from quantcli.algorithms.layer_form import LayerForm
from quantcli.quantize.kernels import weight_axis

FORMS = [
    LayerForm("Conv", {}, (4, 3, 5)),
    LayerForm("Conv", {"group": 2}, (4, 3, 3, 2)),
    LayerForm("Conv", {"group": 6}, (6, 1, 3, 3)),
    LayerForm("Conv", {}, (2, 3, 2, 3, 2)),
    LayerForm("ConvTranspose", {"group": 2}, (6, 2, 3, 2)),
    LayerForm("ConvTranspose", {}, (3, 4, 3)),
    LayerForm("Gemm", {"transB": 1}, (3, 5)),
    LayerForm("Gemm", {}, (5, 3)),
    LayerForm("MatMul", {}, (5, 3)),
    LayerForm("MatMul", {}, (2, 4, 5, 3)),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_from_matrices_undoes_to_matrices(form: LayerForm) -> None:
    assert form.supported
    weight = np.arange(np.prod(form.weight_shape)).reshape(form.weight_shape)
    matrices = form.to_matrices(weight)
    assert matrices.shape == (form.groups, form.outputs, form.inputs)
    assert np.array_equal(form.from_matrices(matrices), weight)


@pytest.mark.parametrize(
    ("text", "shape", "axis"),
    [
        ("Conv <group = 2> (x, w)", (4, 3, 3, 3), 0),
        ("ConvTranspose (x, w)", (6, 4, 3, 3), 1),
        ("Gemm (x, w)", (6, 4), 1),
        ("Gemm <transB = 1> (x, w)", (4, 6), 0),
        ("MatMul (x, w)", (6, 4), 1),
    ],
)
def test_a_scale_per_channel_meets_the_rows_of_its_channel(text: str, shape: tuple[int, ...], axis: int) -> None:
    rank = len(shape)
    x = "1, 6" + ", 8, 8" * (rank == 4)
    y = ", ".join("abcd"[:rank])
    text = f"g (float[{x}] x) => (float[{y}] y) {{ y = {text} }}"
    view = graph(text, w=np.zeros(shape, np.float32)).view()
    form = LayerForm.of(view, view.nodes[0])
    assert form.weight_shape == shape
    assert weight_axis(view, view.nodes[0]) == axis
    # A weight that holds the number of its channel everywhere becomes matrices of equal rows.
    numbers = np.arange(shape[axis], dtype=np.float32)
    held = np.broadcast_to(np.expand_dims(numbers, [a for a in range(rank) if a != axis]), shape)
    matrices = form.to_matrices(held)
    assert np.array_equal(np.broadcast_to(form.per_output(numbers)[:, :, None], matrices.shape), matrices)
    assert np.array_equal(form.to_channels(form.per_output(numbers)), numbers)


def test_one_scale_stands_for_all_outputs() -> None:
    form = LayerForm("ConvTranspose", {"group": 2}, (6, 2, 3, 2))
    assert np.array_equal(form.per_output(np.float32(3)), np.full((2, 2), 3))


def test_groups_of_a_product_share_the_bias_and_get_the_mean() -> None:
    form = LayerForm("MatMul", {}, (2, 5, 3))
    assert form.channels == 3
    assert np.array_equal(form.to_channels(np.array([[1.0, 2, 3], [3, 4, 5]])), [2, 3, 4])


@pytest.mark.parametrize(
    "form",
    [
        LayerForm("Gemm", {"transA": 1}, (5, 3)),
        LayerForm("Gemm", {"alpha": 2.0}, (5, 3)),
        LayerForm("MatMul", {}, (5,)),
        LayerForm("Conv", {}, (0, 3, 3, 3)),
        LayerForm("LSTM", {}, (1, 3, 3)),
    ],
    ids=str,
)
def test_what_is_no_matrix_product_is_not_supported(form: LayerForm) -> None:
    assert not form.supported
