"""Converts models of the ONNX backend suite and looks at the results: one line of JSON in, one out.

In: {"kind", "name", "variant", "form"}, and "again" where the process died on it. Out: the same with "verdict" and
"detail". A verdict is one of

* not run: onnxruntime does not run the float model, or the variant does not exist
* refused: quantcli refused with the code in "detail"; no file is left
* quantized: the result loads, runs, has the interface of the original, and its error is within the bound
* unbounded: as quantized, but an operator on the way has no bound; "detail" names it and the SQNR, which is above
  0 dB, or above 30 dB in float16
* invalid: anything else a result can be wrong in
* crash: an exception that is no error of quantcli's
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import backend_cases as cases
import numpy as np
import onnx
from error_bound import Bound, bound_of
from half_bound import half_bound
from run_nodes import run_all

from quantcli.core.dtypes import INT4
from quantcli.errors import QuantcliError
from quantcli.pipeline.convert import convert
from quantcli.pipeline.source import load_for_recipe
from quantcli.pipeline.types import ConvertRequest, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize import plan_dynamic, plan_weight_only, tables
from quantcli.quantize.form import Form
from quantcli.quantize.plan import Plan, plan_from_json
from quantcli.quantize.recipe import Recipe
from quantcli.runtime import trial_run
from quantcli.runtime.session import Session

FLOORS_DB = {Form.FLOAT: 30.0}
"""Least SQNR of outputs without a bound; 0 dB for forms of integers."""

ROUNDING = 1e-4
"""Relative to the largest output: float32 sums in another order, of up to some hundreds of terms."""


class Wrong(Exception):
    """A result is not valid; the message says how."""


RECIPES = {
    "static": Recipe(method="minmax"),
    "dynamic": Recipe(form=Form.DYNAMIC),
    "weight-only": Recipe(form=Form.WEIGHT_ONLY),
    "weight-only-4": Recipe(form=Form.WEIGHT_ONLY, weight_dtype=INT4, block=32),
    "float16": Recipe(form=Form.FLOAT, float_type="float16"),
}
"""Recipe by what it is called here: 8 bits where the name says nothing else; "weight-only-4" has blocks of 32."""


def examine(kind: str, name: str, variant: str, form: str, folder: Path) -> tuple[str, str]:
    """Verdict and detail of one model."""
    case: cases.Case | None = cases.load(kind, name)
    assert case is not None
    if variant != cases.VARIANTS[0]:
        case = cases.with_constants(case)
    if case is None:
        return "not run", "no such variant"
    return examine_case(case, form, folder)


def examine_case(case: cases.Case, form: str, folder: Path) -> tuple[str, str]:
    """Verdict and detail of a model with its inputs; ``form`` is a key of ``RECIPES``."""
    recipe = RECIPES[form]
    path, feed = cases.write(case, folder)
    if feed is None:
        return "not run", "an input has a type that numpy lacks"
    try:
        expected = Session(path).run(feed)
    except QuantcliError as error:
        return "not run", error.message[:200]
    request = ConvertRequest(
        model=path,
        output=folder / "result.onnx",
        data=_data(recipe.form, folder),
        recipe=recipe,
        placement="static",
        plan_out=folder / "plan.json",
    )
    try:
        convert(request, SilentProgress())
    except QuantcliError as error:
        left = [file.name for file in folder.iterdir() if file.name not in {"model.onnx", "test_data_set_0"}]
        if left:
            return "invalid", f"refused with {error.code}, but left {left}"
        return ("invalid" if error.code.startswith("O") else "refused"), f"{error.code}: {error.message[:200]}"
    plan = plan_from_json((folder / "plan.json").read_text("utf-8"))
    check_runs(path, folder / "result.onnx", feed, expected)
    if recipe.form is Form.STATIC:
        # The bound is that of nearest rounding: no equalization, no rounding against the data.
        nearest = replace(plan, nearest=True, equalization=0.0)
        (folder / "nearest.json").write_text(nearest.to_json(), "utf-8")
        request = replace(
            request,
            plan=folder / "nearest.json",
            plan_out=None,
            output=folder / "nearest.onnx",
        )
        convert(request, SilentProgress())
    result = request.output
    assert result is not None
    if recipe.form is Form.FLOAT:
        bound = half_bound(onnx.load(result), feed)
    else:
        bound = result_bound(path, result, feed, plan, recipe)
    return judge(bound, Session(result).run(feed), expected, FLOORS_DB.get(recipe.form, 0.0))


def _data(form: Form, folder: Path) -> DataOptions:
    """The model's own inputs; made-up ones where it has none or they are no tensors.

    Forms whose weights would be rounded against the data get none, so that they are rounded to the nearest.
    """
    if form in {Form.DYNAMIC, Form.WEIGHT_ONLY}:
        return DataOptions()
    own = (folder / "test_data_set_0").is_dir()
    return DataOptions(specs=(str(folder) if own else "random:4",))


def check_runs(original: Path, result: Path, feed: dict[str, np.ndarray], expected: dict[str, Any]) -> None:
    """The result loads, runs, and gives outputs of the same names, types and shapes."""
    onnx.checker.check_model(onnx.load(result)) if not _contrib(original) else None
    found = Session(result).run(feed)
    if list(found) != list(expected):
        raise Wrong(f"outputs are called {list(found)}, not {list(expected)}")
    for name, value in expected.items():
        if isinstance(value, np.ndarray) and (value.dtype, value.shape) != (found[name].dtype, found[name].shape):
            raise Wrong(f"output '{name}' is {found[name].dtype} {found[name].shape}")


def _contrib(path: Path) -> bool:
    return any(entry.domain not in ("", "ai.onnx") for entry in onnx.load(path).opset_import)


def result_bound(original: Path, result: Path, feed: dict[str, np.ndarray], plan: Plan, recipe: Recipe) -> Bound:
    """The bound of a result, walked in QDQ form; steps that the plan made of ranges are held against them."""
    quantized = onnx.ModelProto.FromString(result.read_bytes())
    if not plan.tensors:
        return bound_of(quantized, feed, {})
    source = load_for_recipe(original, recipe, opset=None, threads=1, choices=plan.choices)
    plain = onnx.ModelProto.FromString(source.prepared.to_bytes())
    values = {**run_all(plain, feed), **feed}
    extremes: dict[str, tuple[float, float]] = {}
    for tensor in plan.tensors.values():
        value = values.get(tensor.name)
        if value is not None and value.size:
            low, high = extremes.get(tensor.group, (0.0, 0.0))
            extremes[tensor.group] = (min(low, float(np.min(value))), max(high, float(np.max(value))))
    limits = {
        f"{tensor.name}_QuantizeLinear": (extremes[tensor.group][1] - extremes[tensor.group][0])
        / (2**tensor.spec.dtype.bits - 1)
        for tensor in plan.tensors.values()
        if tensor.group in extremes and tensor.fixed_range is None and not tensor.spec.symmetric
    }
    return bound_of(quantized, feed, limits)


def judge(bound: Bound, found: dict[str, Any], expected: dict[str, Any], floor_db: float = 0.0) -> tuple[str, str]:
    """Whether every output is within the bound, or above ``floor_db`` where it has none."""
    if bound.wrong:
        return "invalid", bound.wrong[0]
    unbounded, worst = False, np.inf
    for name, value in expected.items():
        if not isinstance(value, np.ndarray) or not value.size:
            continue
        radius = bound.radii.get(name)
        if radius is None or value.dtype.kind != "f":
            same = np.array_equal(found[name], value, equal_nan=value.dtype.kind == "f")
            close = value.dtype.kind == "f" and np.allclose(
                found[name], value, rtol=ROUNDING, atol=1e-6, equal_nan=True
            )
            if not same and not close:
                if radius is None:
                    return "invalid", f"'{name}' reads nothing quantized, but differs"
                unbounded = True
            continue
        if not np.isfinite(radius).all():
            sqnr = sqnr_db(found[name], value)
            if sqnr < floor_db:
                return "invalid", f"'{name}' has no bound, and an SQNR of {sqnr:.1f} dB"
            unbounded, worst = True, min(worst, sqnr)
            continue
        finite = np.isfinite(value)
        if not np.array_equal(finite, np.isfinite(found[name])):
            return "invalid", f"'{name}' is finite elsewhere"
        scale = np.abs(value[finite]).max(initial=0)
        excess = np.abs(found[name] - value)[finite] - np.broadcast_to(radius, value.shape)[finite]
        if excess.max(initial=0) > ROUNDING * scale + 1e-6:
            return (
                "invalid",
                f"'{name}' is off by {excess.max():.3g} more than its bound, of values up to {scale:.3g}",
            )
    return (
        ("unbounded", f"{', '.join(sorted(bound.unbounded))}; {worst:.1f} dB") if unbounded else ("quantized", "")
    )


def sqnr_db(found: np.ndarray, expected: np.ndarray) -> float:
    """SQNR over what is finite in both, in dB; infinite where nothing differs."""
    finite = np.isfinite(expected) & np.isfinite(found)
    values, error = expected[finite].astype(np.float64), (found - expected)[finite].astype(np.float64)
    if not np.any(error):
        return float(np.inf)
    with np.errstate(divide="ignore"):  # of zeros
        return float(10 * np.log10(np.sum(values**2) / np.sum(error**2)))


def answer(asked: dict[str, str]) -> dict[str, str]:
    """The answer to one line."""
    folder = Path(tempfile.mkdtemp(prefix="suite-"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verdict, detail = examine(asked["kind"], asked["name"], asked["variant"], asked["form"], folder)
    except Wrong as error:
        verdict, detail = "invalid", str(error)
    except QuantcliError as error:
        verdict, detail = "invalid", f"afterwards: {error.code}: {error.message[:200]}"
    except Exception:  # noqa: BLE001 — this is what is looked for
        verdict, detail = "crash", traceback.format_exc()[-1500:]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {**asked, "verdict": verdict, "detail": detail}


NO_LIMIT = -(2**20)
"""Smaller than any number of values, or of bytes saved."""

LIMITS = (
    (plan_dynamic, "SMALLEST_WEIGHT"), (tables, "SMALLEST_TABLE"), (tables, "SHORTEST_ROW"),
    (plan_weight_only, "LEAST_SAVED"),
)  # fmt: skip
"""Limits below which quantizing does not pay: the suite's tensors are small."""


def lift_limits() -> None:
    """Quantize where it does not pay, too."""
    for module, name in LIMITS:
        setattr(module, name, NO_LIMIT)


def try_here(request: Mapping[str, Any]) -> str:
    """What a trial in a process of its own would say, in this one: starting one for each model takes hours."""
    try:
        return str(_TRIAL(request))
    except QuantcliError as error:
        return error.message


_ASK, _TRIAL = (getattr(trial_run, name) for name in ("_ask", "_answer"))


def main() -> None:
    """Answer lines until there are no more."""
    lift_limits()
    for line in sys.stdin:
        asked = json.loads(line)
        setattr(trial_run, "_ask", _ASK if "again" in asked else try_here)  # noqa: B010 — not ours to name
        print(json.dumps(answer(asked)), flush=True)


if __name__ == "__main__":
    main()
