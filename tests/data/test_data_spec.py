import pytest

from quantcli.data.spec import parse_data_spec, parse_shape, split_function
from quantcli.errors import UsageError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bare_path_has_no_name_and_no_options(here):
    spec = parse_data_spec("calib.npz")
    assert (spec.name, spec.kind, spec.target, spec.options.given) == (None, "path", "calib.npz", ())


def test_name_path_and_options_are_split(here):
    spec = parse_data_spec("x=dir/a.npy?layout=nhwc&scale=1/255")
    assert (spec.name, spec.target) == ("x", "dir/a.npy")
    assert spec.options.image.layout == "nhwc"
    assert spec.options.image.scale == 1 / 255


def test_input_names_may_hold_colons_slashes_and_dots(here):
    spec = parse_data_spec("serving_default/input.1:0=a.npy")
    assert (spec.name, spec.kind, spec.target) == ("serving_default/input.1:0", "path", "a.npy")


@pytest.mark.parametrize("text", ["C:\\data\\calib.npz", "C:/data/calib.npz", "c:calib", "\\\\host\\share\\a.npz"])
def test_windows_paths_are_paths(here, text):
    spec = parse_data_spec(text)
    assert (spec.name, spec.kind, spec.target) == (None, "path", text)


def test_a_windows_path_may_have_a_name_and_options(here):
    spec = parse_data_spec("x=C:\\data\\calib.npy?rows=feed")
    assert (spec.name, spec.kind, spec.target, spec.options.rows) == ("x", "path", "C:\\data\\calib.npy", "feed")


def test_labels_never_show_directories(here):
    assert parse_data_spec("/home/someone/secret/calib.npz").label == "calib.npz"
    assert parse_data_spec("C:\\Users\\someone\\calib.npz").label == "calib.npz"
    assert parse_data_spec("some/where/images/").label == "images"
    assert parse_data_spec("some/where/gen.py:samples").label == "gen.py:samples"


def test_labels_escape_what_a_terminal_would_obey(here):
    assert parse_data_spec("a\x1b[31m.npz").label == "a\\x1b[31m.npz"


def test_an_existing_file_may_hold_a_question_mark(here):
    (here / "what?.npz").touch()
    (here / "odd?scale=2").touch()
    assert parse_data_spec("what?.npz").target == "what?.npz"
    assert parse_data_spec("x=what?.npz").target == "what?.npz"
    assert parse_data_spec("odd?scale=2").options.given == ()
    spec = parse_data_spec("what?.npz?rows=feed")
    assert (spec.target, spec.options.rows) == ("what?.npz", "feed")


def test_a_missing_file_with_a_question_mark_keeps_its_name(here):
    assert parse_data_spec("what?.npz").target == "what?.npz"


def test_an_existing_path_may_hold_an_equals_sign(here):
    (here / "lr=0.1").mkdir()
    (here / "lr=0.1" / "a.npz").touch()
    assert parse_data_spec("lr=0.1/a.npz").name is None
    assert parse_data_spec("lr=0.1/a.npz?rows=feed").name is None
    spec = parse_data_spec("x=lr=0.1/a.npz")
    assert (spec.name, spec.target) == ("x", "lr=0.1/a.npz")


def test_an_option_value_is_not_taken_for_a_file_that_happens_to_exist(here):
    (here / "feed").touch()
    spec = parse_data_spec("a.npz?rows=feed")
    assert (spec.target, spec.options.rows) == ("a.npz", "feed")


def test_python_functions_are_recognised(here):
    spec = parse_data_spec("x/gen.py:samples")
    assert spec.kind == "function"
    assert split_function(spec) == ("x/gen.py", "samples")
    assert split_function(parse_data_spec("package.module:samples")) == ("package.module", "samples")
    assert split_function(parse_data_spec("C:\\x\\gen.py:samples")) == ("C:\\x\\gen.py", "samples")


def test_python_functions_may_have_a_name(here):
    spec = parse_data_spec("x=/some/gen.py:samples")
    assert (spec.name, spec.kind, spec.target) == ("x", "function", "/some/gen.py:samples")
    (here / "lr=1").mkdir()
    (here / "lr=1" / "gen.py").touch()
    spec = parse_data_spec("lr=1/gen.py:samples")
    assert (spec.name, spec.kind, spec.target) == (None, "function", "lr=1/gen.py:samples")


def test_random_data_is_parsed(here):
    spec = parse_data_spec("random:128?seed=3&low=-1&high=1")
    assert (spec.kind, spec.target, spec.options.seed) == ("random", "128", 3)
    assert (spec.options.low, spec.options.high) == (-1.0, 1.0)
    named = parse_data_spec("ids=random:8?high=30522")
    assert (named.name, named.kind, named.options.high) == ("ids", "random", 30522.0)


def test_a_home_directory_is_expanded_behind_a_name(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    assert parse_data_spec("x=~/a.npy").path == here / "a.npy"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no path"),
        ("x=", "no path after '='"),
        ("=a.npz", "no name before '='"),
        ("a.npz?layout", "'layout' of data .* has no value"),
        ("a.npz?layout=", "'layout' of data .* has no value"),
        ("a.npz?scale=1&scale=2", "twice"),
        ("random", "how many"),
        ("random:", "how many"),
        ("random:0", "how many"),
        ("random:many", "how many"),
        ("gen.py", "no function"),
        ("gen.py:", "no function"),
    ],
)
def test_what_does_not_parse_is_a_usage_error_with_a_hint(here, text, told):
    with pytest.raises(UsageError, match=told) as caught:
        parse_data_spec(text)
    assert caught.value.code == "D101"


def test_a_python_file_without_a_function_hints_at_the_form(here):
    (here / "gen.py").touch()
    with pytest.raises(UsageError) as caught:
        parse_data_spec("gen.py")
    assert "gen.py:FUNCTION" in caught.value.hint


def test_a_misspelt_option_gets_a_suggestion(here):
    with pytest.raises(UsageError, match=r"unknown option 'layou' \(did you mean 'layout'\?\)") as caught:
        parse_data_spec("a.npz?layou=nhwc")
    assert caught.value.code == "D102"


def test_absurdly_long_texts_are_paths_that_do_not_exist(here):
    assert parse_data_spec("a" * 10_000).kind == "path"
    assert parse_data_spec("a\0b").kind == "path"


def test_shapes_parse():
    assert parse_shape("x=1x3x224x224") == ("x", (1, 3, 224, 224))
    assert parse_shape("a=b:0=4") == ("a=b:0", (4,))
    assert parse_shape("sr=scalar") == ("sr", ())


@pytest.mark.parametrize("text", ["1x3", "x=", "x=1x", "x=1xN", "=1", "x=-1x3"])
def test_shapes_that_do_not_parse_are_usage_errors(text):
    with pytest.raises(UsageError, match="no NAME=DIMENSIONS"):
        parse_shape(text)
