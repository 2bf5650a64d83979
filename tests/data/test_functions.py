import sys
import textwrap

import numpy as np
import pytest

from quantcli.data.base import InputSpec
from quantcli.data.dataset import open_dataset
from quantcli.errors import DataError, UsageError

X = InputSpec(name="x", dtype="float32", shape=("N", 3))


@pytest.fixture
def gen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(code, name="gen.py"):
        (tmp_path / name).write_text("import numpy as np\n" + textwrap.dedent(code))
        return f"{tmp_path / name}:samples"

    return write


def test_dictionaries_of_a_generator_are_complete_feeds_of_unknown_number(gen):
    dataset = open_dataset(
        [gen("def samples():\n    for i in range(3):\n        yield {'x': np.full((2, 3), i, np.float32)}")], [X]
    )
    assert dataset.length is None
    assert dataset.executes_code
    assert not dataset.synthetic
    assert dataset.name == "gen.py:samples"
    for _ in range(2):
        assert [(s["x"].shape, float(s["x"][0, 0])) for s in dataset] == [((2, 3), 0), ((2, 3), 1), ((2, 3), 2)]
    with pytest.raises(TypeError, match="known only after reading"):
        len(dataset)


def test_a_list_has_a_known_number(gen):
    dataset = open_dataset([gen("def samples():\n    return [{'x': np.ones((1, 3), np.float32)}] * 4")], [X])
    assert len(dataset) == 4
    assert (
        len(open_dataset([gen("def samples():\n    return [{'x': np.ones((1, 3), 'f4')}] * 4")], [X], samples=3))
        == 3
    )


def test_no_more_samples_are_made_than_asked_for(gen):
    text = gen("""
        def samples():
            for i in range(3):
                yield {'x': np.ones((1, 3), np.float32)}
            raise RuntimeError('one too many')
    """)
    assert len(list(open_dataset([text], [X], samples=3))) == 3


def test_arrays_that_are_filled_again_do_not_change_samples_that_were_given(gen):
    text = gen("""
        def samples():
            buffer = np.zeros((1, 3), np.float32)
            for i in range(3):
                buffer[:] = i
                yield {'x': buffer}
    """)
    assert [float(s["x"][0, 0]) for s in list(open_dataset([text], [X]))] == [0, 1, 2]


def test_lists_and_float64_are_cast_with_a_note(gen):
    dataset = open_dataset([gen("def samples():\n    yield {'x': [[1.0, 2.0, 3.0]]}")], [X])
    assert next(iter(dataset))["x"].dtype == np.float32
    assert dataset.notes == ("'gen.py:samples': float64 is cast to float32 for input 'x'",)


def test_names_that_are_no_inputs_are_noted(gen):
    dataset = open_dataset([gen("def samples():\n    yield {'x': np.ones((1, 3), 'f4'), 'y': 1}")], [X])
    assert dataset.notes == ("'gen.py:samples': not used: 'y'",)


def test_a_function_of_an_importable_module_is_found_in_the_working_directory(gen, monkeypatch):
    gen("def samples():\n    yield {'x': np.ones((1, 3), np.float32)}", "quantcli_test_module.py")
    monkeypatch.delitem(sys.modules, "quantcli_test_module", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    dataset = open_dataset(["quantcli_test_module:samples"], [X])
    assert len(list(dataset)) == 1
    monkeypatch.delitem(sys.modules, "quantcli_test_module")


def test_a_file_may_import_its_neighbours_and_leaves_no_litter(gen, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    gen("SHAPE = (1, 3)", "quantcli_neighbour.py")
    text = gen("""
        from dataclasses import dataclass
        @dataclass
        class Item:
            value: int
        def samples():
            from quantcli_neighbour import SHAPE
            yield {'x': np.full(SHAPE, Item(2).value, np.float32)}
    """)
    before, modules = list(sys.path), set(sys.modules)
    dataset = open_dataset([text], [X])
    for sample in dataset:
        assert sample["x"][0, 0] == 2
        assert sys.path == before  # also while a sample is out
    assert sys.path == before
    assert set(sys.modules) - modules == {"quantcli_neighbour"}
    assert not list((tmp_path / "__pycache__").glob("gen*"))
    del sys.modules["quantcli_neighbour"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def samples():\n    raise KeyError('oops')\n", "failed at line 3 of 'gen.py': KeyError: 'oops'"),
        ("1 / 0\ndef samples(): ...", "failed at line 2 of 'gen.py': ZeroDivisionError: division by zero"),
        ("def samples(:\n    pass", "failed at line 2 of 'gen.py': SyntaxError: "),
        ("import sys\nsys.exit(3)", "failed at line 3 of 'gen.py': SystemExit: 3"),
        ("def samples():\n    return np.zeros(2).reshape(3)", "failed at line 3 of 'gen.py': ValueError"),
        ("def samples(path):\n    yield {}", "failed: TypeError: samples\\(\\) missing 1 required"),
        ("def samples():\n    return 3", "gave int, not samples"),
        ("def samples():\n    return {'x': 1}", "gave dict, not samples"),
        ("def samples():\n    yield np.zeros((1, 3))", "sample 0 .* is of type ndarray, not a dictionary"),
        ("def sample():\n    yield {}", "has no function 'samples' \\(did you mean 'sample'\\?\\)"),
        ("samples = 3", "has no function 'samples'"),
    ],
)
def test_errors_of_the_users_code_are_told_with_its_line(gen, code, told):
    with pytest.raises(DataError, match=told) as caught:
        open_dataset([gen(code)], [X])
    assert caught.value.code == "D109"


def test_an_error_in_the_middle_is_told_with_its_line(gen):
    text = gen("def samples():\n    yield {'x': np.ones((1, 3), 'f4')}\n    raise OSError('gone')\n")
    dataset = open_dataset([text], [X])
    with pytest.raises(DataError, match=r"failed at line 4 of 'gen.py': OSError: gone"):
        list(dataset)


def test_a_keyboard_interrupt_is_not_swallowed(gen):
    with pytest.raises(KeyboardInterrupt):
        open_dataset([gen("def samples():\n    raise KeyboardInterrupt")], [X])


def test_no_samples_is_empty(gen):
    with pytest.raises(DataError, match="gave no samples") as caught:
        open_dataset([gen("def samples():\n    return iter(())")], [X])
    assert caught.value.code == "D106"


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("{'x': np.ones((1, 4), 'f4')}", "dimension 1 of a feed is 4, not 3"),
        ("{'x': np.ones(3, 'f4')}", "is the batch axis missing"),
        ("{'x': np.ones((1, 3), 'u1')}", "uint8 does not become float32"),
        ("{'x': np.array([[None, 1, 2]], object)}", "Python objects"),
        ("{'x': [[1.0], [1.0, 2.0]]}", "is no array"),
        ("{'y': np.ones((1, 3), 'f4')}", "input 'x' is missing"),
    ],
)
def test_samples_that_do_not_fit_are_told_with_their_number(gen, item, told):
    text = gen(f"def samples():\n    yield {{'x': np.ones((1, 3), 'f4')}}\n    yield {item}")
    dataset = open_dataset([text], [X])
    with pytest.raises(DataError, match=f"sample 1 of 'gen.py:samples' does not fit: .*{told}") as caught:
        list(dataset)
    assert caught.value.code == "D107"


def test_the_first_sample_is_checked_before_anything_runs(gen):
    with pytest.raises(DataError, match=r"sample 0 of .* does not fit"):
        open_dataset([gen("def samples():\n    yield {'x': np.ones((1, 4), 'f4')}")], [X])
    with pytest.raises(DataError, match="holds 'xs', but not the input 'x'"):
        open_dataset([gen("def samples():\n    yield {'xs': np.ones((1, 3), 'f4')}")], [X])


def test_a_function_beside_a_file_must_give_as_many_samples(gen, tmp_path):
    np.save(tmp_path / "y.npy", np.ones((3, 3), np.float32))
    text = gen("def samples():\n    for _ in range(2):\n        yield {'x': np.ones((1, 3), 'f4')}")
    y = InputSpec(name="y", dtype="float32", shape=("N", 3))
    dataset = open_dataset([f"x={text}", f"y={tmp_path / 'y.npy'}"], [X, y])
    with pytest.raises(DataError, match=r"'gen.py:samples' gave 2 samples, fewer than the other data"):
        list(dataset)


def test_the_samples_of_a_function_cannot_be_shuffled(gen):
    with pytest.raises(UsageError, match="cannot be shuffled"):
        open_dataset([gen("def samples():\n    yield {'x': np.ones((1, 3), 'f4')}")], [X], shuffle=True)


def test_a_missing_file_or_module_is_told(gen, tmp_path):
    with pytest.raises(DataError, match=r"'none.py' does not exist"):
        open_dataset([f"{tmp_path / 'none.py'}:samples"], [X])
    with pytest.raises(DataError, match="ModuleNotFoundError: No module named 'quantcli_none'"):
        open_dataset(["quantcli_none:samples"], [X])
