"""Mistakes on the command line are answered with what was meant."""

from __future__ import annotations

import pytest
from cli_fakes import conversion, invoke, replace_use_case


def told(*arguments: str, env: dict[str, str] | None = None) -> str:
    result = invoke(*arguments, env=env)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize(
    ("typo", "meant"), [("convrt", "convert"), ("calib", "calibrate"), ("comapre", "compare")]
)
def test_a_misspelt_command_gets_a_suggestion(typo, meant):
    text = told(typo, "m.onnx")
    assert f"no such command '{typo}'" in text
    assert f"did you mean '{meant}'?" in text


def test_an_unknown_command_gets_the_list():
    assert (
        "the commands are calibrate, convert, compare, analyze, tune, run, init, report, inspect, explain"
        in told("zzz")
    )


def test_a_misspelt_option_gets_a_suggestion():
    text = told("convert", "m.onnx", "--exlude", "x")
    assert "no such option '--exlude'" in text
    assert "did you mean '--exclude'" in text
    assert "quantcli convert --help" in text


def test_a_misspelt_option_before_the_command_is_told():
    assert "no such option '--verbos'" in told("--verbos", "convert")


def test_a_missing_argument_is_named():
    assert "missing argument 'MODEL'" in told("convert")
    assert "missing argument 'MODEL'" in told("calibrate")


def test_a_wrong_choice_lists_the_right_ones():
    text = told("convert", "m.onnx", "--format", "onnx")
    assert "'qdq', 'qoperator'" in text


@pytest.mark.parametrize("typed", ["--bits fp4", "--granularity block:0", "--granularity row"])
def test_a_scheme_that_does_not_parse_is_a_usage_error(typed):
    assert told("convert", "m.onnx", "--data", "d.npz", *typed.split()).startswith("error[U100]: ")


def test_two_forms_exclude_each_other():
    text = told("convert", "m.onnx", "--dynamic", "--weight-only")
    assert text.startswith("error[U105]: --dynamic and --weight-only exclude each other")


@pytest.mark.parametrize(
    "typed", ["--bits 3", "--bits 32", "--weight-bits 5", "--weight-bits 0", "--activation-bits 7"]
)
def test_other_bits_are_refused_in_one_sentence(typed):
    text = told("convert", "m.onnx", "--data", "d.npz", *typed.split())
    assert text.startswith(f"error[U102]: {typed} is not available: integers of ONNX have 16, 8, 4 or 2 bits\n")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("--target tensorrt --asymmetric", "U102]: target 'tensorrt' has no zero points"),
        ("--target qnn --dynamic", "U102]: --dynamic is not for target 'qnn'"),
        ("--dynamic --bits 4", "U102]: --dynamic multiplies 8-bit integers"),
        ("--weight-only --activation-bits 8", "U105]: --activation-bits has no effect with --weight-only"),
        ("--bits fp16 --calibration c", "U105]: --bits fp16 takes no ranges from a file"),
        ("--dynamic --placement measured", "U105]: --placement has no effect with --dynamic"),
        ("--granularity block:32", "U102]: --granularity block:32 is for --weight-only"),
    ],
)
def test_combinations_that_make_no_sense_are_refused_before_any_work(typed, sentence):
    assert told("convert", "m.onnx", *typed.split()).startswith(f"error[{sentence}")


def test_values_of_the_environment_may_be_without_effect(monkeypatch):
    spy = replace_use_case(monkeypatch, "convert_or_rescue", conversion())
    result = invoke("convert", "m.onnx", "--dynamic", env={"QUANTCLI_CONVERT_METHOD": "mse"})
    assert result.exit_code == 0, result.output
    assert spy.request.recipe.method == "mse"


def test_convert_without_a_source_of_ranges_says_what_to_add():
    text = told("convert", "m.onnx")
    assert text.startswith("error[U101]: there is nothing to calibrate with")
    assert "--data calib.npz" in text
    assert "quantcli calibrate m.onnx --data calib.npz" in text


def test_calibrate_without_samples_says_what_to_add():
    assert "add --data" in told("calibrate", "m.onnx")


@pytest.mark.parametrize(
    ("arguments", "option", "missing"),
    [
        (("convert", "m.onnx", "--calibration", "c", "--samples", "3"), "--samples", "--data"),
        (("convert", "m.onnx", "--dry-run", "--layout", "nhwc"), "--layout", "--data"),
        (("compare", "a", "b", "--labels", "l.npy"), "--labels", "--data"),
        (("compare", "a", "b", "--shuffle"), "--shuffle", "--data"),
        (("compare", "a", "b", "--data", "d", "--labels-output", "y"), "--labels-output", "--labels"),
        (("compare", "a", "b", "--repeats", "9"), "--repeats", "--latency"),
    ],
)
def test_options_without_effect_are_refused(arguments, option, missing):
    assert f"{option} has no effect without {missing}" in told(*arguments)


def test_options_without_effect_may_come_from_the_environment(monkeypatch):
    spy = replace_use_case(monkeypatch, "convert_or_rescue", conversion())
    result = invoke("convert", "m.onnx", "--calibration", "c", env={"QUANTCLI_CONVERT_SAMPLES": "3"})
    assert result.exit_code == 0
    assert spy.request.data.samples == 3


def test_a_plan_takes_the_place_of_planning_options():
    text = told("convert", "m.onnx", "--data", "d", "--plan", "p.json", "--exclude", "x", "--target", "generic")
    assert "--plan takes the place of planning, so --target, --exclude have no effect" in text


def test_more_and_less_exclude_each_other():
    assert "-v asks for more and -q for less" in told("-v", "convert", "m.onnx", "-q")


def test_merging_needs_two_files_and_a_name():
    assert "--merge A.calib B.calib -o ALL.calib" in told("calibrate", "--merge", "a.calib", "b.calib")
    assert "--merge A.calib B.calib -o ALL.calib" in told("calibrate", "--merge", "a.calib", "-o", "c.calib")


def test_merging_takes_no_samples():
    assert "takes no --data" in told("calibrate", "--merge", "a", "b", "-o", "c", "--data", "d")


def test_two_models_at_once_are_refused():
    assert "one model at a time" in told("calibrate", "a.onnx", "b.onnx", "--data", "d")


def test_an_unknown_topic_gets_suggestions():
    text = told("explain", "op:Cnov")
    assert "there is no topic 'op:Cnov'" in text
    assert "'op:Conv'" in text
