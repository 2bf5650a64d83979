"""Everything that the command line accepts gives a model that loads, runs and is good enough; the rest is refused.

The combinations are those of ``matrix``. Legal ones convert the sample models to something that onnxruntime loads
and runs and whose SQNR on samples that calibration has not seen is not below the floor of its widths. The others
are refused in one sentence with exit code 2, and no file is read for that. By default a few combinations run, in
which all pairs of values stand together; everything is marked slow.
"""

from __future__ import annotations

import json
import math
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
from quantcli.pipeline.forms import MAKERS
from quantcli.quantize.form import Form
from quantcli.quantize.scheme import FP8, Scheme

SAMPLES = Path(__file__).parents[2] / "sample_models"
ENTRIES = {entry["name"]: entry for entry in json.loads((SAMPLES / "manifest.json").read_text("utf-8"))["models"]}
MODELS = sorted(ENTRIES)

JUDGED = 64
"""Samples of the evaluation data."""

FLOATS = {"fp16": 50.0, "bf16": 25.0, FP8: 10.0}
"""dB. A rounding to m digits behind the leading 1 is 2^-(m+1) of a value at most, 6.02·(m+1) + 4.8 dB below it:
71, 53 and 29 dB for the 10, 7 and 3 digits; several roundings on the way to the output add up."""

WEIGHTS = {16: 50.0, 8: 15.0, 4: 0.0, 2: -10.0}
"""dB, of weights that are rounded to nearest: about 6.02 dB a bit, and 8 bits reach 30 dB on the sample models.

Two bits have three values: such a model is not expected to be good for anything."""

ACTIVATIONS = {16: 45.0, 8: 15.0, 4: -6.0, 2: -math.inf}
"""The same of activations. Of four values nothing is expected but that the model runs."""

COARSE = {"tensor": 15.0, "pow2": 6.0, "output": 3.0}
"""dB that one scale for a whole weight, scales of powers of two, and rounded outputs may cost.

Channels of depthwise convolutions differ by far (digits_mobilenet: 20 dB with a scale each, 6 with one for all); a
power of two is up to one bit wider than needed.
"""


def floor(scheme: Scheme) -> float:
    """The SQNR that has to be reached, in dB."""
    if scheme.narrow:
        return FLOATS[scheme.narrow]
    filled = scheme.filled()
    limits = [WEIGHTS[filled.weight_bits or 8]]
    if filled.form is Form.STATIC:
        limits.append(ACTIVATIONS[filled.activation_bits or 8])
    elif filled.form is Form.DYNAMIC or filled.accuracy_level == 4:  # kernels with 8-bit activations inside
        limits.append(ACTIVATIONS[8])
    coarse = {"tensor": not filled.per_channel, "pow2": filled.pow2_scales, "output": filled.row.everything}
    return min(limits) - sum(cost for name, cost in COARSE.items() if coarse[name])


def available(scheme: Scheme) -> bool:
    """Whether this tree has the form that the scheme asks for."""
    return scheme.form is Form.STATIC or scheme.form in MAKERS


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
    """Convert all that is available; everything that is wrong is told at once."""
    there = [each for each in wanted if available(each.legal)]
    wrong = []
    for combination in there:
        try:
            reached = sqnr(convert(combination, model, statistics, folder), model)
        except NothingToQuantize:
            continue
        except Exception as error:  # noqa: BLE001  # whatever it is, the others are looked at as well
            wrong.append(f"{combination}: {error}")
            continue
        if reached < floor(combination.legal):
            wrong.append(f"{combination}: {reached:.1f} dB, and not {floor(combination.legal):g}")
    assert not wrong, f"{len(wrong)} of {len(there)}:\n" + "\n".join(wrong)
    if len(there) < len(wanted):
        pytest.skip(f"{len(wanted) - len(there)} of {len(wanted)} combinations are not available yet")


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
