import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.core.saturation import pair_bound, saturation_loss


def byte_products(x, weight):
    """What VPMADDUBSW and VPMADDWD give, element by element."""
    out = np.zeros((len(x), len(weight)), dtype=np.int64)
    for row, values in enumerate(x.tolist()):
        for channel, factors in enumerate(weight.tolist()):
            products = [a * b for a, b in zip(values, factors, strict=True)]
            for start in range(0, len(products), 2):
                out[row, channel] += max(-32768, min(32767, sum(products[start : start + 2])))
    return out


def test_two_full_products_saturate_at_the_end_of_int16():
    x, weight = np.array([[255, 255]], np.uint8), np.array([[127, 127], [-127, -127], [127, -127]], np.int8)
    found = saturation_loss(x, weight)
    assert (255 * 127 * np.array([2, -2, 0]) + found.delta).tolist() == [[32767, -32768, 0]]
    assert (found.saturated, found.pairs) == (2, 3)


def test_only_neighbours_are_added_in_16_bits():
    x = np.full((1, 4), 255, np.uint8)
    apart = np.array([[127, 0, 127, 0]], np.int8)
    assert saturation_loss(x, apart).delta.tolist() == [[0]]
    assert pair_bound(apart).channels == 0
    assert pair_bound(np.array([[0, 127, 127, 0]], np.int8)).channels == 0
    assert pair_bound(np.array([[0, 0, 127, 127]], np.int8)).channels == 1


@pytest.mark.parametrize(
    ("pair", "safe"),
    [
        ((64, 64), True),
        ((127, 1), True),
        ((127, 2), False),
        ((-64, -64), True),
        ((-127, -1), True),
        ((-128, -1), False),
        ((127, -128), True),
    ],
)
def test_the_bound_is_where_the_largest_activation_saturates(pair, safe):
    weight = np.array([pair], np.int8)
    bound = pair_bound(weight)
    worst = np.array([[255 * (w > 0) for w in pair], [255 * (w < 0) for w in pair]], np.uint8)
    assert (bound.channels == 0) is safe
    assert bool(saturation_loss(worst, weight).delta.any()) is not safe
    sums = worst.astype(int) @ weight.T.astype(int)
    assert abs(bound.worst) == np.abs(sums).max()


def test_a_weight_without_elements_is_safe():
    assert pair_bound(np.zeros((3, 0), np.int8)).worst == 0


@settings(max_examples=60, deadline=None)
@given(data=st.data(), inner=st.integers(1, 9))
def test_the_loss_is_that_of_the_instructions(data, inner):
    x = data.draw(npst.arrays(np.uint8, (3, inner)))
    weight = data.draw(
        npst.arrays(np.int8, (4, inner), elements=st.sampled_from([-128, -127, -1, 0, 5, 100, 127]))
    )
    exact = x.astype(np.int64) @ weight.T.astype(np.int64)
    found = saturation_loss(x, weight)
    np.testing.assert_array_equal(exact + found.delta, byte_products(x, weight))
    assert not found.delta[:, [not pair_bound(weight[i : i + 1]).channels for i in range(4)]].any()
