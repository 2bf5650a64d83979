from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx.parser
import pytest

from quantcli.calibration.collector import MOST_PROBLEMS, collect
from quantcli.calibration.convergence import RangeHistory
from quantcli.calibration.probe import MOST, ObservedTensor, stride_for
from quantcli.core import histogram
from quantcli.core.stats import DECAY, MovingRange, TensorStats
from quantcli.errors import DataError, RuntimeFailure
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.observe import expose
from quantcli.runtime.session import Session, SessionSettings

Sample = Mapping[str, np.ndarray]


def parsed(text: str) -> OnnxModel:
    """A model whose nodes are named after their first outputs."""
    proto = onnx.parser.parse_model(text)
    for node in proto.graph.node:
        node.name = node.name or f"make_{node.output[0]}"
    return load_model_bytes(proto.SerializeToString())


def session(model: OnnxModel) -> Session:
    return Session(model.to_bytes())


def observe_all(names: Sequence[str]) -> list[ObservedTensor]:
    return [ObservedTensor(name=name) for name in names]


def network(opset: int = 13) -> OnnxModel:
    """Convolution, activation and a pooled sum: negative and non-negative tensors, several shapes."""
    rng = np.random.default_rng(1)
    weight = ", ".join(f"{value:.4f}" for value in rng.normal(size=16 * 3 * 9))
    return parsed(f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        g (float[N, 3, H, W] x) => (float[N, 16, 1, 1] y)
        <float[16, 3, 3, 3] w = {{{weight}}}> {{
            c = Conv <pads = [1, 1, 1, 1]> (x, w)
            r = Relu(c)
            n = Neg(r)
            y = GlobalAveragePool(n)
        }}
    """)


NAMES = ("c", "n", "r", "x", "y")


def images(count: int, size: int = 20, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(1, 3, size, size)).astype(np.float32)} for _ in range(count)]


def by_hand(model: OnnxModel, samples: Sequence[Sample], name: str, *, nonnegative: bool) -> TensorStats:
    """The same statistics from exposed tensors, by their definitions."""
    exposed = session(expose(model, [name]))
    arrays = [exposed.run(sample, [name])[name] for sample in samples]
    stride = stride_for(arrays[0].shape)
    lows = [0.0 if nonnegative else float(array.min()) for array in arrays]
    highs = [float(array.max()) for array in arrays]
    low = high = 0.0
    for a, b in zip(lows, highs, strict=True):
        low, high = low * DECAY + a * (1 - DECAY), high * DECAY + b * (1 - DECAY)
    sampled = np.concatenate([array.ravel()[::stride] for array in arrays])
    return TensorStats(
        samples=len(samples),
        minimum=min(lows),
        maximum=max(highs),
        histogram=histogram.of(sampled, weight=stride, minimum=min(lows), maximum=max(highs)),
        average=MovingRange(samples=len(samples), low=low, high=high),
        amplitudes=sum(max(-a, b) for a, b in zip(lows, highs, strict=True)),
    )


# What is measured ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [9, 13, 18])
def test_statistics_equal_those_of_exposed_tensors(opset: int) -> None:
    model, samples = network(opset), images(5)
    found = collect(model, observe_all(NAMES), samples, make_session=session)
    assert found.samples == 5
    assert list(found.tensors) == sorted(NAMES)
    for name in NAMES:
        assert found.tensors[name] == by_hand(model, samples, name, nonnegative=name == "r"), name
    assert found.notes == ()


@pytest.mark.parametrize("batch_size", [2, 4, 7])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    model, samples = network(), images(7)
    one = collect(model, observe_all(NAMES), samples, make_session=session)
    several = collect(model, observe_all(NAMES), samples, make_session=session, batch_size=batch_size)
    assert one == several


def test_the_number_of_threads_changes_nothing() -> None:
    model, samples = network(), images(4, size=40)
    one, three = (
        collect(
            model,
            observe_all(NAMES),
            samples,
            make_session=lambda m, n=threads: Session(m.to_bytes(), SessionSettings(threads=n)),
        )
        for threads in (1, 3)
    )
    assert one == three


def test_the_order_in_which_tensors_are_asked_for_changes_nothing() -> None:
    model, samples = network(), images(3)
    first, second = (
        collect(model, observe_all(names), samples, make_session=session) for names in (NAMES, NAMES[::-1])
    )
    assert first == second


def test_shapes_may_vary_from_sample_to_sample() -> None:
    model = network()
    samples = [image for size in (20, 12, 33, 12) for image in images(1, size, seed=size)]
    found = collect(model, observe_all(NAMES), samples, make_session=session, batch_size=4)
    for name in NAMES:
        assert found.tensors[name] == by_hand(model, samples, name, nonnegative=name == "r")


def test_the_history_holds_the_ranges_on_the_way() -> None:
    samples = images(6)
    found = collect(network(), observe_all(["x"]), samples, make_session=session)
    stacked = np.stack([sample["x"].ravel() for sample in samples])
    expected = RangeHistory(
        samples=np.arange(1, 7),
        minimum=np.minimum.accumulate(stacked.min(axis=1))[:, None],
        maximum=np.maximum.accumulate(stacked.max(axis=1))[:, None],
    )
    assert found.history == expected


@pytest.mark.parametrize("batch_size", [1, 3])
def test_channels_have_extremes_of_their_own(batch_size: int) -> None:
    samples = images(6)
    found = collect(
        network(),
        [ObservedTensor(name="x", channel_axis=1), ObservedTensor(name="c")],
        samples,
        make_session=session,
        batch_size=batch_size,
    ).tensors["x"]
    stacked = np.concatenate([sample["x"] for sample in samples])
    assert found.channel_minimum is not None
    assert found.channel_maximum is not None
    np.testing.assert_array_equal(found.channel_minimum, stacked.min(axis=(0, 2, 3)))
    np.testing.assert_array_equal(found.channel_maximum, stacked.max(axis=(0, 2, 3)))
    assert (found.minimum, found.maximum) == (stacked.min(), stacked.max())


def test_an_axis_of_varying_length_has_no_channels() -> None:
    samples = [*images(1, 20), *images(1, 12)]
    found = collect(network(), [ObservedTensor(name="c", channel_axis=2)], samples, make_session=session)
    assert found.tensors["c"].channel_axis is None
    assert found.tensors["c"].samples == 2


def test_a_channel_axis_that_a_tensor_lacks_is_ignored() -> None:
    found = collect(network(), [ObservedTensor(name="c", channel_axis=7)], images(1), make_session=session)
    assert found.tensors["c"].channel_axis is None


@pytest.mark.parametrize(("shape", "dims"), [((1, 64, 112, 112), 2), ((1, 3, 7), 1), ((50, 128, 31), 1)])
def test_strides_are_coprime_to_all_dimensions_and_leave_a_bounded_number(
    shape: tuple[int, ...], dims: int
) -> None:
    stride = stride_for(shape)
    assert all(np.gcd(stride, dim) == 1 for dim in shape)
    assert min(256, np.prod(shape)) * 0.8 <= np.prod(shape) / stride <= MOST + 1


def test_a_scalar_and_an_empty_tensor_have_stride_1() -> None:
    assert stride_for(()) == 1
    assert stride_for((1, 0, 3)) == 1


def test_types_and_shapes_that_the_model_leaves_open_are_found_by_running_it() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, K] x) => (float[N, K] y) { h = Neg(x)  y = Relu(h) }
    """)
    for node in proto.graph.node:
        node.name = node.output[0]
    del proto.graph.value_info[:]
    model = load_model_bytes(proto.SerializeToString())
    assert model.view().tensors["h"].dtype is None
    sample = {"x": np.float32([[1, -2, 3]])}
    found = collect(model, observe_all(["h"]), [sample], make_session=session).tensors["h"]
    assert (found.minimum, found.maximum) == (-3, 2)


# Batches ------------------------------------------------------------------------------------------------


def test_a_model_that_mixes_samples_runs_them_one_by_one() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, K] x) => (float[N, K] y) {
            m = ReduceMax <axes = [0], keepdims = 1> (x)
            y = Sub(x, m)
        }
    """)
    samples = [{"x": np.float32([[i, 2 * i + 1]])} for i in range(4)]
    one = collect(model, observe_all(["y"]), samples, make_session=session)
    found = collect(model, observe_all(["y"]), samples, make_session=session, batch_size=4)
    assert found.tensors == one.tensors
    assert found.notes == ("samples ran one by one: the model does not keep those of a batch apart",)


def test_a_batch_that_is_not_the_first_axis_runs_one_by_one() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, K] x) => (float[K, N] y) { y = Transpose(x) }
    """)
    samples = [{"x": np.float32([[i, 2 * i + 1, 7]])} for i in range(3)]
    one = collect(model, observe_all(["y"]), samples, make_session=session)
    found = collect(model, observe_all(["y"]), samples, make_session=session, batch_size=3)
    assert found.tensors == one.tensors


def test_tensors_that_are_the_same_for_all_samples_count_for_each() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, K] x) => (float[N, K] y) <float[1, 3] table = {1, 2, 3}> {
            b = Neg(table)
            y = Add(x, b)
        }
    """)
    samples = [{"x": np.float32([[i, 2 * i + 1, 7]])} for i in range(3)]
    one = collect(model, observe_all(["b", "y"]), samples, make_session=session)
    found = collect(model, observe_all(["b", "y"]), samples, make_session=session, batch_size=3)
    assert found == one
    assert found.tensors["b"].samples == 3


# Things that go wrong -----------------------------------------------------------------------------------


def logarithms(outputs: str = "float[N, K] y") -> OnnxModel:
    return parsed(f"""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, K] x) => ({outputs}) {{
            a = Neg(x)
            [the_log] l = Log(a)
            y = Relu(l)
        }}
    """)


GOOD, BAD = {"x": np.float32([[-1, -2]])}, {"x": np.float32([[-1, 2]])}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_nan_is_reported_with_tensor_node_and_samples(batch_size: int) -> None:
    with pytest.raises(DataError) as caught:
        collect(
            logarithms(),
            observe_all(["l", "a"]),
            [GOOD, BAD, GOOD, BAD],
            make_session=session,
            batch_size=batch_size,
        )
    assert caught.value.code == "K101"
    assert caught.value.message == (
        "the model gives values that are not finite in 2 samples (numbers 1, 3, counted from 0): "
        "NaN first in 'l', made by node 'the_log'"
    )


def test_nan_that_only_an_unobserved_tensor_shows_is_found_in_the_output() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, K] x) => (float[N, K] y) { [root] y = Sqrt(x) }
    """)
    with pytest.raises(DataError, match="NaN first in 'y', made by node 'root'"):
        collect(model, observe_all(["x"]), [BAD], make_session=session)


def test_calibration_stops_after_some_bad_samples() -> None:
    read = []

    def stream() -> Iterator[Sample]:
        for number in range(100):
            read.append(number)
            yield BAD

    with pytest.raises(DataError, match=f"in at least {MOST_PROBLEMS} samples"):
        collect(logarithms(), observe_all(["l"]), stream(), make_session=session)
    assert len(read) == MOST_PROBLEMS


@pytest.mark.parametrize("batch_size", [1, 4])
def test_samples_with_nan_are_passed_over_when_told_so(batch_size: int) -> None:
    found = collect(
        logarithms(),
        observe_all(["a", "l"]),
        [GOOD, BAD, GOOD, BAD],
        make_session=session,
        batch_size=batch_size,
        on_nonfinite="ignore",
    )
    assert (found.tensors["l"].samples, found.tensors["l"].nonfinite) == (2, 2)
    assert (found.tensors["a"].samples, found.tensors["a"].nonfinite) == (4, 0)
    assert found.tensors["l"].maximum == float(np.log(np.float32(2)))
    assert found.notes == ("'l' held Inf or NaN in 2 of 4 samples",)


MASKED = """
    <ir_version: 8, opset_import: ["" : 13]>
    g (float[N, K] x) => (float[N, K] y) {
        zero = Constant <value_float = 0.0> ()
        below = Less(x, zero)
        minus = Constant <value_float = -1.0> ()
        infinite = Div(minus, zero)
        m = Where(below, infinite, x)
        y = Softmax(m)
    }
"""


@pytest.mark.parametrize("batch_size", [1, 2])
def test_masks_of_infinities_are_noted_and_nothing_more(batch_size: int) -> None:
    samples = [{"x": np.float32([[1, -2, 4]])}, {"x": np.float32([[1, 2, 5]])}]
    found = collect(parsed(MASKED), observe_all(["m", "y"]), samples, make_session=session, batch_size=batch_size)
    assert found.notes == ("'m' held Inf or NaN in 1 of 2 samples",)
    assert (found.tensors["m"].nonfinite, found.tensors["m"].minimum, found.tensors["m"].maximum) == (1, 1, 5)
    assert found.tensors["y"].samples == 2


def test_infinities_of_both_signs_are_told_from_nan() -> None:
    samples = [{"x": np.float32([[-np.inf, np.inf, 4]])}]
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, K] x) => (float[N, K] y) { y = Sigmoid(x) }
    """)
    found = collect(model, observe_all(["x", "y"]), samples, make_session=session)
    assert found.tensors["x"].nonfinite == 1
    assert found.tensors["y"].maximum == 1


def test_an_infinity_in_an_output_is_an_error() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, K] x) => (float[N, K] y) { y = Exp(x) }
    """)
    with pytest.raises(DataError, match="Inf first in 'y', made by node 'make_y'"):
        collect(model, observe_all(["x"]), [{"x": np.float32([[1000]])}], make_session=session)


def test_large_finite_values_are_no_problem_although_their_sum_overflows() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, K] x) => (float[N, K] y) { h = Neg(x)  y = Softmax(h) }
    """)
    huge = np.float32([[3e38, 3e38, -3e38, -3e38] * 8])
    found = collect(model, observe_all(["h"]), [{"x": huge}], make_session=session)
    assert found.tensors["h"] == by_hand(model, [{"x": huge}], "h", nonnegative=False)


def test_channels_of_samples_that_are_passed_over_do_not_count() -> None:
    found = collect(
        logarithms(),
        [ObservedTensor(name="l", channel_axis=1), ObservedTensor(name="a", channel_axis=1)],
        [GOOD, {"x": np.float32([[0, 2]])}],
        make_session=session,
        on_nonfinite="ignore",
    )
    low = found.tensors["l"].channel_minimum
    assert low is not None
    assert low.tolist() == [0, float(np.log(np.float32(2)))]


@pytest.mark.parametrize("opset", [9, 13])
def test_empty_tensors_are_skipped(opset: int) -> None:
    samples = [{"x": np.zeros((1, 0), np.float32)}, {"x": np.float32([[1, -2]])}]
    model = parsed(f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        g (float[N, K] x) => (float[N, K] y) {{ n = Neg(x)  y = Relu(n) }}
    """)
    for order in (samples, samples[::-1]):
        found = collect(
            model,
            [ObservedTensor(name="n", channel_axis=1), ObservedTensor(name="y")],
            order,
            make_session=session,
        )
        assert (found.tensors["n"].samples, found.samples) == (1, 2)
        assert (found.tensors["n"].minimum, found.tensors["n"].maximum) == (-1, 2)
        assert (found.tensors["y"].minimum, found.tensors["y"].maximum) == (0, 2)


def test_tensors_that_are_always_empty_are_noted() -> None:
    samples = [{"x": np.zeros((1, 3, 0, 5), np.float32)}]
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, 3, H, W] x) => (float[N, 3, H, W] y) { y = Neg(x) }
    """)
    found = collect(model, observe_all(["y"]), samples, make_session=session)
    assert found.tensors["y"] == TensorStats()
    assert found.notes == ("'y' had no elements in any sample",)


def test_tensors_that_are_not_float_are_left_out_with_a_note() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, K] x, int64[K] i) => (float[N, K] y, int64[K] j) { y = Neg(x)  j = Neg(i) }
    """)
    sample = {"x": np.float32([[1]]), "i": np.int64([3])}
    found = collect(model, observe_all(["y", "j"]), [sample], make_session=session)
    assert list(found.tensors) == ["y"]
    assert found.notes == ("'j' is int64, not float, and was not observed",)


def test_outputs_that_are_sequences_do_no_harm() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, K] x) => (seq(float[N, K]) s) { y = Neg(x)  s = SequenceConstruct(y) }
    """)
    found = collect(model, observe_all(["y"]), [{"x": np.float32([[1]])}], make_session=session)
    assert found.tensors["y"].maximum == -1


def test_a_model_without_any_float_tensor_has_no_statistics() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (int64[N] x) => (int64[N] y) { y = Neg(x) }
    """)
    found = collect(model, [], [{"x": np.int64([1])}] * 3, make_session=session, batch_size=2)
    assert (found.samples, found.tensors) == (3, {})


def test_half_precision_is_measured() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float16[N, K] x) => (float16[N, K] y) { y = Neg(x) }
    """)
    found = collect(model, observe_all(["y"]), [{"x": np.float16([[1, 0.1]])}], make_session=session)
    assert found.tensors["y"].dtype == "float16"
    assert found.tensors["y"].maximum == float(-np.float16(0.1))


def test_no_samples_are_an_error() -> None:
    with pytest.raises(DataError) as caught:
        collect(network(), observe_all(["x"]), [], make_session=session)
    assert caught.value.code == "D106"


def test_unknown_tensors_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no value 'q'"):
        collect(network(), observe_all(["q"]), images(1), make_session=session)


def test_a_model_that_fails_to_run_says_so_itself() -> None:
    with pytest.raises(RuntimeFailure) as caught:
        collect(
            network(),
            observe_all(["c"]),
            [*images(1), {"x": np.zeros((1, 4, 2, 2), np.float32)}],
            make_session=session,
        )
    assert caught.value.code == "R102"


# The job ------------------------------------------------------------------------------------------------


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def start(self, stage: str, total: int | None) -> None:
        self.events.append(("start", stage, total))

    def advance(self, steps: int = 1) -> None:
        self.events.append(("advance", steps))

    def finish(self) -> None:
        self.events.append(("finish",))


def test_progress_is_told_of_every_sample() -> None:
    progress = Recorder()
    collect(
        network(), observe_all(["x"]), images(5), make_session=session, batch_size=2, progress=progress, total=5
    )
    assert progress.events == [
        ("start", "calibrate", 5),
        ("advance", 2),
        ("advance", 2),
        ("advance", 1),
        ("finish",),
    ]


def test_an_interrupt_passes_and_ends_the_progress() -> None:
    def interrupted() -> Iterator[Sample]:
        yield from images(2)
        raise KeyboardInterrupt

    progress = Recorder()
    with pytest.raises(KeyboardInterrupt):
        collect(network(), observe_all(["x"]), interrupted(), make_session=session, progress=progress)
    assert progress.events[-1] == ("finish",)


def test_memory_does_not_grow_with_the_samples() -> None:
    samples = images(20, size=8)

    def peak(count: int) -> int:
        tracemalloc.start()
        stream = (samples[number % 20] for number in range(count))
        collect(network(), observe_all(NAMES), stream, make_session=session)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(10)
    assert peak(2000) < 1.1 * peak(800)
