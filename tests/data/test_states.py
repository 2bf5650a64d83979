import numpy as np
import pytest

from quantcli.data.base import InputSpec
from quantcli.data.dataset import open_dataset
from quantcli.data.states import StateFeed, StateLinks, StreamedDataset, check_links, parse_links, zero_states
from quantcli.errors import DataError, UsageError

X = InputSpec(name="x", dtype="float32", shape=(1, 2))
S = InputSpec(name="s", dtype="float32", shape=(1, "n"))
OUTPUTS = (
    InputSpec(name="y", dtype="float32", shape=(1, 3)),
    InputSpec(name="z", dtype="float32", shape=(1, 2)),
    InputSpec(name="k", dtype="int64", shape=(1, 2)),
)
SUM = StateLinks(pairs=(("total", "s"),))


def steps(tmp_path, count, **more):
    x = np.arange(2 * count, dtype=np.float32).reshape(count, 1, 2)
    np.savez(tmp_path / "steps.npz", x=x[:, 0], **more)
    return open_dataset([str(tmp_path / "steps.npz")], [X, S], optional=("s",)), x


def running_sum(feed):
    return {"total": feed["x"] + feed["s"]}


def streamed(dataset, links=SUM, start=None):
    zero = {"s": np.zeros((1, 2), np.float32)} if start is None else start
    return StreamedDataset(dataset=dataset, links=links, run=running_sum, start=zero, order=("x", "s"))


def test_each_step_gets_the_state_that_the_one_before_gave(tmp_path):
    dataset, x = steps(tmp_path, 5)
    states = np.array([sample["s"] for sample in streamed(dataset)])
    assert (states == np.concatenate([np.zeros((1, 1, 2)), np.cumsum(x, axis=0)[:-1]])).all()


def test_a_new_sequence_starts_anew(tmp_path):
    dataset, x = steps(tmp_path, 6)
    found = streamed(dataset, StateLinks(pairs=SUM.pairs, length=3))
    states = np.array([sample["s"] for sample in found])
    for part in (slice(0, 3), slice(3, 6)):
        assert (states[part] == np.concatenate([np.zeros((1, 1, 2)), np.cumsum(x[part], axis=0)[:-1]])).all()


def test_a_sequence_starts_from_the_state_in_the_data(tmp_path):
    given = np.full((4, 2), 7, np.float32)
    dataset, x = steps(tmp_path, 4, s=given)
    found = streamed(dataset, StateLinks(pairs=SUM.pairs, length=2), start={})
    states = np.array([sample["s"] for sample in found])
    assert (states[[0, 2], 0] == 7).all()
    assert (states[1] == x[0] + 7).all()
    assert (states[3] == x[2] + 7).all()


def test_reading_twice_gives_the_same(tmp_path):
    found = streamed(steps(tmp_path, 4)[0])
    first, second = ([sample["s"].tolist() for sample in found] for _ in range(2))
    assert first == second
    assert len(found) == 4


def test_an_input_that_is_not_optional_still_needs_data(tmp_path):
    np.save(tmp_path / "s.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(DataError, match=r"input 'x' .* has no data"):
        open_dataset([f"s={tmp_path / 's.npy'}"], [X, S], optional=("s",))


def test_a_state_that_grows_is_told():
    feed = StateFeed(SUM, {})
    feed.take({"total": np.zeros((1, 2))})
    with pytest.raises(DataError, match=r"state 'total' has shape \[1, 3\] after step 2, and had \[1, 2\] before"):
        feed.take({"total": np.zeros((1, 3))})


@pytest.mark.parametrize("text", ["y", "=s", "y=", ""])
def test_what_is_no_pair_is_refused(text):
    with pytest.raises(UsageError, match="is no pair of a state"):
        parse_links([text], None)


def test_an_input_has_one_state():
    with pytest.raises(UsageError, match="input 's' gets two states"):
        parse_links(["y=s", "z=s"], None)


def test_no_pairs_are_no_links():
    assert parse_links([], None) is None


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (("yy", "x"), "'yy', which is no output"),
        (("z", "xx"), "'xx', which is no input"),
        (("y", "x"), r"the output has shape \[1, 3\], the input takes float32 \[1,2\]"),
        (("k", "x"), "the output is int64, the input takes float32"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(pair, told):
    with pytest.raises(UsageError, match=told):
        check_links(StateLinks(pairs=(pair,)), [X, S], OUTPUTS)


def test_a_pair_that_fits_is_accepted():
    check_links(StateLinks(pairs=(("z", "x"), ("y", "s"))), [X, S], OUTPUTS)


def test_open_dimensions_of_a_state_are_1_or_what_the_user_says():
    assert zero_states(SUM, [X, S], ("x",), {})["s"].shape == (1, 1)
    assert zero_states(SUM, [X, S], ("x",), {"s": (1, 2)})["s"].shape == (1, 2)
    assert zero_states(SUM, [X, S], ("x", "s"), {}) == {}


def test_a_state_of_unknown_rank_needs_a_shape():
    with pytest.raises(UsageError, match="state 's' has no known shape"):
        zero_states(SUM, [InputSpec(name="s", dtype="float32", shape=None)], (), {})


def test_what_is_fed_back_is_in_the_notes(tmp_path):
    notes = streamed(steps(tmp_path, 2)[0]).notes
    assert "states are fed back (total → s; one sequence); every model goes on from its own" in notes
    assert "state 's' starts as 2 zeros of shape [1, 2]: the data hold none" in notes
