"""Everything that the command line accepts gives a model that loads, runs and is good enough; the rest is refused.

The combinations are those of ``matrix``. Legal ones convert the sample models to something that onnxruntime loads
and runs and whose SQNR on samples that calibration has not seen is not below the floor of its widths. The others
are refused in one sentence with exit code 2, and no file is read for that. By default a few combinations run, in
which all pairs of values stand together; everything is marked slow.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

from cli_fakes import invoke
from matrix import DEFAULTS, Combination, combinations, legal, pairwise

from quantcli.cli.convert import convert as command
from quantcli.ops.targets import TARGETS
from quantcli.quantize.form import Form
from quantcli.quantize.scheme import FP8, Scheme

SAMPLES = Path(__file__).parents[2] / "sample_models"
ENTRIES = {entry["name"]: entry for entry in json.loads((SAMPLES / "manifest.json").read_text("utf-8"))["models"]}
MODELS = sorted(ENTRIES)

JUDGED = 64
"""Samples of the evaluation data."""

# Floors, in dB: what all combinations of their kind reached at least, less 2 to 3 dB. The largest of several
# roundings decides, so the floor of a combination is that of its coarsest part.

FLOATS = {"fp16": 58.0, "bf16": 44.0, FP8: 15.0}
"""A rounding to m digits behind the leading 1 is 2^-(m+1) of a value at most, 6.02·(m+1) + 4.8 dB below it: 71, 53
and 29 dB for the 10, 7 and 3 digits; several roundings on the way to the output add up."""

WEIGHTS = {16: 58.0, 8: 33.0, 4: 10.0, 2: -8.0}
"""Of weights with a scale per channel: about 6.02 dB a bit. Two bits have three values: such a model is not good
for anything."""

ONE_SCALE = {16: 51.0, 8: 3.0, 4: -9.0, 2: -10.0}
"""Of digits_mobilenet with one scale for a whole weight: channels of depthwise convolutions differ by far."""

ACTIVATIONS = {16: 62.0, 8: 15.0, 4: -5.0, 2: -9.0}
"""Of activations in the static form. The lowest of 8 bits is digits_mobilenet with symmetric signed ones, which
have no use for half of their range behind a Relu (17.5; elsewhere 23.5 and more). Of 4 and 2 bits nothing is
expected but that the noise is hardly larger than the outputs."""

TENSOR, POW2 = 2.0, 4.0
"""What one scale for a whole weight costs the other models, and scales of powers of two all: these are up to a bit
wider than needed."""

DEPTHWISE = "digits_mobilenet"


def floor(scheme: Scheme, model: str) -> float:
    """The SQNR that has to be reached, in dB."""
    if scheme.narrow:
        return FLOATS[scheme.narrow]
    filled = scheme.filled()
    bits, tensor = filled.weight_bits or 8, not filled.per_channel and not filled.block
    weights = WEIGHTS[bits] - (TENSOR if tensor else 0.0)
    found = [ONE_SCALE[bits] if tensor and model == DEPTHWISE else weights]
    if (
        filled.form is Form.STATIC
    ):  # those that are rounded at run time, and in MatMulNBits, cost less than weights
        found.append(ACTIVATIONS[filled.activation_bits or 8])
    return min(found) - (POW2 if filled.pow2_scales else 0.0)


def files(model: str) -> tuple[Path, Path, Path]:
    entry = ENTRIES[model]
    return SAMPLES / entry["file"], SAMPLES / entry["calibration"], SAMPLES / entry["evaluation"]


@cache
def feeds(model: str) -> dict[str, np.ndarray]:
    with np.load(files(model)[2]) as data:
        return {name: data[name][:JUDGED] for name in data.files}


def outputs(path: Path, model: str) -> list[np.ndarray]:
    """Outputs for all samples, at once or one by one, in float64."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    types = {"tensor(float16)": np.float16, "tensor(float)": np.float32}
    given = {i.name: feeds(model)[i.name].astype(types[i.type]) for i in session.get_inputs() if i.type in types}
    if any(i.type == "tensor(bfloat16)" for i in session.get_inputs()):
        pytest.skip("numpy has no bfloat16 to feed")
    return [np.asarray(value, dtype=np.float64) for value in session.run(None, given)]


@cache
def reference(model: str) -> list[np.ndarray]:
    return outputs(files(model)[0], model)


def sqnr(path: Path, model: str) -> float:
    """Of the worst output, in dB."""
    found = []
    for expected, value in zip(reference(model), outputs(path, model), strict=True):
        assert np.isfinite(value).all()
        noise = float(np.square(value - expected).sum())
        found.append(10 * np.log10(float(np.square(expected).sum()) / max(noise, 1e-30)))
    return min(found)


@pytest.fixture(scope="session")
def statistics(tmp_path_factory: pytest.TempPathFactory):
    """Gives the calibration of a model for a target."""
    folder = tmp_path_factory.mktemp("calibrations")

    @cache
    def made(model: str, target: str) -> Path:
        path = folder / f"{model}.{target}.calib"
        source, data, _ = files(model)
        done = invoke(
            "calibrate", str(source), "--data", str(data), "--samples", "32", "--target", target, "-o", str(path)
        )
        assert done.exit_code == 0, done.output
        return path

    return made


class NothingToQuantize(Exception):
    """A form that quantizes products only, on a model of convolutions."""


def convert(combination: Combination, model: str, statistics, folder: Path) -> Path:
    ranges: list[str] = []
    if combination.legal.form is Form.STATIC:
        ranges = ["--calibration", str(statistics(model, combination.legal.target))]
    output = folder / "q.onnx"
    done = invoke("convert", str(files(model)[0]), *ranges, *combination.arguments, "-o", str(output), "-f")
    if combination.legal.form is Form.DYNAMIC and "error[M304]" in done.stderr and model != "digits_transformer":
        raise NothingToQuantize
    assert done.exit_code == 0, done.output
    return output


def check(wanted: list[Combination], model: str, statistics, folder: Path) -> None:
    """Convert all of them; everything that is wrong is told at once."""
    wrong = []
    for combination in wanted:
        least = floor(combination.legal, model)
        try:
            reached = sqnr(convert(combination, model, statistics, folder), model)
        except NothingToQuantize:
            continue
        except Exception as error:  # noqa: BLE001  # whatever it is, the others are looked at as well
            wrong.append(f"{combination}: {error}")
            continue
        if reached < least:
            wrong.append(f"{combination}: {reached:.1f} dB, and not {least:g}")
    assert not wrong, f"{len(wrong)} of {len(wanted)}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_accepted_gives_a_model_that_is_good_enough(model, statistics, tmp_path):
    check(pairwise(legal())[MODELS.index(model) :: len(MODELS)], model, statistics, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("target", TARGETS)
def test_everything_that_is_accepted_gives_a_model_that_is_good_enough(target, model, statistics, tmp_path):
    check([each for each in legal() if each.legal.target == target], model, statistics, tmp_path)


def refused(combination: Combination) -> None:
    """The refusal is one sentence, and comes before the model would have been missed."""
    ranges = ["--data", "absent.npz"]
    done = invoke("convert", "absent.onnx", *ranges, *combination.arguments)
    assert done.exit_code == 2, f"{combination}: {done.output}"
    first, second, *_ = done.stderr.splitlines()
    assert first.startswith(("error[U102]: ", "error[U105]: ")), first
    assert second.startswith("  hint: "), second
    assert "absent" not in first


def illegal(step: int) -> list[Combination]:
    """Every ``step``-th of the combinations that make no sense."""
    return [each for each in combinations() if each.scheme is None][::step]


def test_what_makes_no_sense_is_refused_before_any_work():
    for combination in illegal(997):
        refused(combination)


@pytest.mark.slow
def test_everything_that_makes_no_sense_is_refused_before_any_work():
    for combination in illegal(7):  # steps that share no factor with the number of choices meet all of them
        refused(combination)


def test_the_enumeration_starts_from_the_defaults_of_the_command_line():
    stated = command.make_context("convert", ["m.onnx"]).params
    assert {name: stated[name] for name in DEFAULTS} == DEFAULTS
