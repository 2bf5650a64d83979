"""``quantcli convert``: what is asked becomes a request, the result one screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_fakes import conversion, dry_run, invoke, plan, replace_use_case, report

from quantcli.errors import OutputError
from quantcli.quantize.plan import plan_from_json
from quantcli.report.to_json import from_json

DATA = ("convert", "m.onnx", "--data", "calib.npz")


@pytest.fixture
def spy(monkeypatch):
    return replace_use_case(monkeypatch, "convert_or_rescue", conversion())


def test_defaults_are_those_of_the_library(spy, monkeypatch):
    monkeypatch.delenv("QUANTCLI_CONVERT_PLACEMENT")
    from quantcli.pipeline.types import ConvertRequest, DataOptions

    assert invoke(*DATA).exit_code == 0
    assert spy.request == ConvertRequest(model=Path("m.onnx"), data=DataOptions(specs=("calib.npz",)))


@pytest.mark.parametrize(
    ("typed", "stored"), [("", "int8"), ("--bits 8", "int8"), ("--weight-bits 8 --activation-bits 8", "int8"),
                          ("--weight-bits 4", "int4"), ("--bits 8 --weight-bits 4", "int4")]
)  # fmt: skip
def test_the_bits_of_weights_reach_the_recipe(spy, typed, stored):
    assert invoke(*DATA, *typed.split()).exit_code == 0
    assert (spy.request.recipe.weight_dtype.name, spy.request.recipe.activation_dtype.name) == (stored, "uint8")


@pytest.mark.parametrize(
    ("typed", "weights", "activations"),
    [
        ("--bits 16", "int16", "uint16"),
        ("--activation-bits 4", "int8", "uint4"),
        ("--weight-bits 2", "int2", "uint8"),
        ("--bits fp8", "float8_e4m3fn", "float8_e4m3fn"),
        ("--bits fp8 --weight-bits 8", "int8", "float8_e4m3fn"),
    ],
)
def test_every_width_reaches_the_recipe(spy, typed, weights, activations):
    assert invoke(*DATA, *typed.split()).exit_code == 0
    recipe = spy.request.recipe
    assert (recipe.weight_dtype.name, recipe.activation_dtype.name) == (weights, activations)
    assert recipe.symmetric == ("fp8" in typed)


@pytest.mark.parametrize("other", ["--asymmetric", "--weight-asymmetric", "--contrib-qdq"])
def test_float8_has_neither_zero_points_nor_quantizers_of_com_microsoft(spy, other):
    result = invoke(*DATA, "--bits", "fp8", other)
    assert result.exit_code == 2
    assert other in result.output
    assert "U105" in result.output


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--target tensorrt", ("int8", True)),
        ("--target cpu-arm", ("int8", False)),
        ("--target cpu-arm --symmetric", ("int8", True)),
        ("--target qnn --activation-bits 16", ("uint16", False)),
        ("--target generic --symmetric", ("uint8", True)),
    ],
)
def test_the_target_decides_what_is_not_said_of_activations(spy, typed, expected):
    assert invoke(*DATA, *typed.split()).exit_code == 0
    assert (spy.request.recipe.activation_dtype.name, spy.request.recipe.symmetric) == expected


def test_every_option_reaches_the_request(spy):
    result = invoke(
        *DATA, "--data", "y=b.npy", "--eval-data", "eval.npz", "-o", "out.onnx", "--bits", "8",
        "--format", "qoperator", "--target", "generic", "--method", "percentile:99.9", "--granularity", "tensor",
        "--symmetric", "--exclude", "a*", "--exclude", "op:Gemm", "--include", "re:.*", "--opset", "17",
        "--plan-out", "p.json", "--report", "r.json", "--report", "r.md", "--samples", "7", "--shuffle",
        "--seed", "3", "--shape", "x=1x3", "--batch-size", "4", "--threads", "2", "--resize", "256", "--crop",
        "224", "--mean", "0.5", "--std", "0.2,0.2,0.2", "--scale", "1/255", "--layout", "nhwc", "--channels",
        "bgr", "--preprocess", "imagenet", "--provider", "cuda", "--provider", "cpu", "-f",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    request = spy.request
    assert request.output == Path("out.onnx")
    assert request.format == "qoperator"
    assert request.opset == 17
    assert request.plan_out == Path("p.json")
    assert request.reports == (Path("r.json"), Path("r.md"))
    assert request.overwrite is True
    assert (request.recipe.target, request.recipe.method) == ("generic", "percentile:99.9")
    assert (request.recipe.symmetric, request.recipe.per_channel) == (True, False)
    assert (request.recipe.exclude, request.recipe.include) == (("a*", "op:Gemm"), ("re:.*",))
    assert request.data.specs == ("calib.npz", "y=b.npy")
    assert (request.data.samples, request.data.shuffle, request.data.seed) == (7, True, 3)
    assert request.data.shapes == {"x": (1, 3)}
    assert request.data.image == {
        "resize": "256", "crop": "224", "mean": "0.5", "std": "0.2,0.2,0.2", "scale": "1/255",
        "layout": "nhwc", "channels": "bgr", "preprocess": "imagenet",
    }  # fmt: skip
    assert (request.run.batch_size, request.run.threads) == (4, 2)
    assert request.run.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")


def test_evaluation_samples_are_prepared_alike_but_not_limited(spy):
    invoke(*DATA, "--eval-data", "eval.npz", "--samples", "7", "--shuffle", "--scale", "1/255")
    request = spy.request
    assert request.eval_data.specs == ("eval.npz",)
    assert request.eval_data.image == {"scale": "1/255"}
    assert (request.eval_data.samples, request.eval_data.shuffle) == (None, False)


def test_the_environment_gives_what_the_command_line_does_not(spy):
    env = {"QUANTCLI_CONVERT_METHOD": "mse", "QUANTCLI_CONVERT_THREADS": "2", "QUANTCLI_CONVERT_EXCLUDE": "a b"}
    assert invoke(*DATA, "--threads", "1", env=env).exit_code == 0
    assert spy.request.recipe.method == "mse"
    assert spy.request.recipe.exclude == ("a", "b")
    assert spy.request.run.threads == 1


def test_the_summary_fits_one_screen_and_says_what_matters(spy):
    result = invoke(*DATA)
    text = result.stdout
    assert len(text.splitlines()) <= 24
    assert "4.00 kB → 1.00 kB (0.250 ×)" in text
    assert "3 of 5 quantized (1 integer kernel, 1 fused into them, 1 moving integers)" in text
    assert "1 in float, 1 not about floats" in text
    assert "Softmax has no integer kernel worth having" in text
    assert "1 of 2 run as integer kernels: 1 QLinearConv" in text
    assert "a float bias" in text
    assert "logits SQNR 31.2 dB, on 8 calibration samples" in text
    assert "quantcli compare m.onnx m.int8.onnx --data EVAL" in text


def test_the_next_command_is_ready_to_be_typed(spy):
    text = invoke(*DATA, "--eval-data", "my eval.npz").stdout
    assert "quantcli compare m.onnx m.int8.onnx --data 'my eval.npz'" in text


def test_notes_go_to_standard_error(spy):
    result = invoke(*DATA)
    assert "one thing to know" not in result.stdout
    assert "note: one thing to know\n" in result.stderr


def test_quiet_says_nothing(spy):
    result = invoke("-q", *DATA)
    assert (result.stdout, result.stderr) == ("", "")


def test_verbose_shows_every_node(spy):
    text = invoke(*DATA, "-v").stdout
    assert [name for name in ("conv0", "relu0", "flat", "soft", "shape") if f"  {name} " not in text] == []
    assert "into 'conv0'" in text
    assert "(by 'op:Softmax')" in " ".join(text.split())  # narrow consoles wrap the last column


def test_json_is_the_report_and_nothing_else(spy):
    assert from_json(invoke(*DATA, "--json").stdout) == report()


def test_a_dry_run_needs_no_samples_and_prints_the_plan(monkeypatch):
    spy = replace_use_case(monkeypatch, "convert_or_rescue", dry_run())
    result = invoke("convert", "m.onnx", "--dry-run")
    assert result.exit_code == 0
    assert spy.request.dry_run is True
    assert "m.onnx for ort-cpu: 3 of 5 quantized" in result.stdout
    assert "F201" in result.stdout


def test_a_dry_run_is_what_was_asked_for_so_quiet_keeps_it(monkeypatch):
    replace_use_case(monkeypatch, "convert_or_rescue", dry_run())
    result = invoke("convert", "m.onnx", "--dry-run", "-q")
    assert "3 of 5 quantized" in result.stdout
    assert result.stderr == ""


def test_the_json_of_a_dry_run_is_the_plan(monkeypatch):
    replace_use_case(monkeypatch, "convert_or_rescue", dry_run())
    text = invoke("convert", "m.onnx", "--dry-run", "--json").stdout
    assert json.loads(text)["target"] == "ort-cpu"
    assert plan_from_json(text) == plan()


def test_fidelity_that_was_not_measured_is_said_so(monkeypatch):
    replace_use_case(monkeypatch, "convert_or_rescue", conversion(fidelity={}, fidelity_on=""))
    assert "not measured" in invoke(*DATA).stdout


def test_names_from_the_model_cannot_command_the_terminal(monkeypatch):
    replace_use_case(monkeypatch, "convert_or_rescue", conversion(fidelity={"\x1b[31mred[bold]": 3.0}))
    text = invoke(*DATA).stdout
    assert "\x1b[31m" not in text
    assert "red[bold]" in text


def test_an_error_of_the_use_case_ends_in_its_exit_code(monkeypatch):
    replace_use_case(monkeypatch, "convert_or_rescue", OutputError("O101", "'m.int8.onnx' exists", hint="add -f"))
    result = invoke(*DATA)
    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr.startswith("error[O101]: 'm.int8.onnx' exists\n  hint: add -f\n")


def test_a_bug_ends_in_70_and_one_clear_line(monkeypatch):
    replace_use_case(monkeypatch, "convert_or_rescue", ZeroDivisionError("by zero"))
    result = invoke(*DATA)
    assert result.exit_code == 70
    assert "Traceback" not in result.stderr
    assert "internal error: ZeroDivisionError: by zero" in result.stderr
    assert "Traceback" in invoke(*DATA, "-v").stderr


def test_an_interrupt_ends_in_130(monkeypatch):
    replace_use_case(monkeypatch, "convert_or_rescue", KeyboardInterrupt())
    result = invoke(*DATA)
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr
