"""The form "float": a model that computes in float16 or bfloat16.

plan → edit → trial in a process of its own → (what the runtime does not take goes back to float32, again) →
operators whose rounding costs most go back to float32, as measured on samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from quantcli.data.base import Sample
from quantcli.errors import ConfigError, UsageError
from quantcli.graph.model import OnnxModel
from quantcli.graph.observe import expose
from quantcli.pipeline.float_refine import Refined, refine_floats
from quantcli.pipeline.float_work import FloatWork, broken
from quantcli.pipeline.forms import Maker, Outcome
from quantcli.pipeline.samples import WatchedSamples, open_samples
from quantcli.pipeline.saved_plan import MAKE_AGAIN, plan_name, plan_of
from quantcli.pipeline.source import FloatModel, runnable
from quantcli.pipeline.source_light import load_lightly
from quantcli.pipeline.trial_feed import trial_feed
from quantcli.pipeline.types import ConvertRequest
from quantcli.progress import Progress
from quantcli.quantize.narrow_facts import TensorFact, TensorWatch
from quantcli.quantize.plan import Action, Plan
from quantcli.quantize.plan_float import FLOAT32, make_float_plan
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.session import Session, SessionSettings

BFLOAT16_OPSET = 13
"""First ai.onnx version whose Cast knows bfloat16."""

FACT_SAMPLES = 8
"""Samples on which ranges of tensors are looked at."""

GAIN_SAMPLES = 4
"""Samples on which parts are tried in float32."""


def plan_only(request: ConvertRequest) -> tuple[FloatModel, Plan]:
    """The source and its plan, without data.

    Raises:
        UsageError: U105, bfloat16 is wanted for inputs and outputs.
        ModelError, ConfigError: As loading and planning raise.
    """
    source = _source(request, request.recipe)
    return source, make_float_plan(source.whole, request.recipe)


def make(request: ConvertRequest, saved: Plan | None, progress: Progress) -> Outcome:
    """Convert.

    Raises:
        UsageError: U105, bfloat16 is wanted for inputs and outputs.
        ModelError: M304, nothing becomes narrow.
        ConfigError: C103 or C104, the plan is of another model.
        OutputError: O301, the result does not run.
    """
    recipe = request.recipe if saved is None else _recipe_of(request.recipe, saved)
    source = _source(request, recipe)
    feed = trial_feed(source, request)
    work = FloatWork(recipe=recipe, source=source, feed=feed.sample, threads=request.run.threads)
    if saved is not None:
        _check(request, saved, source)
        model, failure = work.tried(saved)
        if failure:
            raise broken(failure)
        return _outcome(work, saved, model, feed.notes)
    samples: tuple[Sample, ...] = ()
    watched = None
    if request.data.specs:
        count = min(request.data.samples or FACT_SAMPLES, FACT_SAMPLES)
        watched = WatchedSamples(open_samples(replace(request.data, samples=count), source.inputs, source.path))
        samples = tuple(watched)
    work.facts = tensor_facts(source, samples, recipe.float_type, request.run.threads)
    plan, model = work.that_runs()
    notes = feed.notes
    if samples:
        refined = refine_floats(work, plan, samples[:GAIN_SAMPLES], progress)
        if refined.plan != plan:
            plan, model = work.that_runs()
        notes = (*notes, *_measured(refined, plan))
    outcome = _outcome(work, plan, model, notes)
    return outcome if watched is None else replace(outcome, digests=watched.fingerprint.digests)


MAKER = Maker(plan_only, make)


def _source(request: ConvertRequest, recipe: Recipe) -> FloatModel:
    if recipe.float_type == "bfloat16" and not recipe.keep_io:
        raise UsageError(
            "U105",
            "onnxruntime takes no arrays of bfloat16 from Python, so a model with such inputs cannot be verified",
            hint="leave --convert-io out: inputs and outputs keep their types",
        )
    lowest = BFLOAT16_OPSET if recipe.float_type == "bfloat16" else 0
    return load_lightly(
        request.model,
        opset=request.opset,
        lowest=lowest,
        float_type=recipe.float_type,
        threads=request.run.threads,
    )


def _recipe_of(recipe: Recipe, plan: Plan) -> Recipe:
    """The recipe that a saved plan was made by, as far as carrying it out goes."""
    if plan.narrow is None:
        raise ConfigError("C103", "the plan is of the form 'float', but names no float type", hint="make it again")
    return replace(recipe, float_type=plan.narrow.dtype, keep_io=not plan.narrow.convert_io)


def _check(request: ConvertRequest, plan: Plan, source: FloatModel) -> None:
    """Refuse a plan of another model."""
    plan_of(request, plan, source.whole)
    constants = () if plan.narrow is None else sorted(constant.name for constant in plan.narrow.constants)
    missing = [name for name in constants if not source.whole.is_constant(name)]
    if missing:
        raise ConfigError(
            "C104",
            f"plan '{plan_name(request)}' is of another model: '{missing[0]}' is not in both",
            hint=MAKE_AGAIN,
        )


def tensor_facts(
    source: FloatModel, samples: Sequence[Sample], dtype: str, threads: int
) -> Mapping[str, TensorFact]:
    """What becomes of the float32 values of the main graph when they are rounded to ``dtype``."""
    names = [info.name for info in source.view.tensors.values() if info.dtype == FLOAT32 and not info.is_constant]
    watch = TensorWatch(dtype)
    if not samples or not names:
        return {}
    made = [name for name in names if not source.view.tensors[name].is_input]
    with runnable(expose(source.prepared, made)) as loadable:
        session = Session(loadable, SessionSettings(threads=threads, optimization="basic"))
    for sample in samples:
        values = {**sample, **session.run(sample, made)}
        for name in names:
            watch.update(name, np.asarray(values[name]))
    return watch.facts()


def _outcome(work: FloatWork, plan: Plan, model: OnnxModel, notes: Sequence[str]) -> Outcome:
    return Outcome(source=work.source, plan=plan, model=model, sample=work.feed, notes=(*notes, *_told(plan)))


def _measured(found: Refined, plan: Plan) -> Iterator[str]:
    """What hardware that computes in the type makes of the model."""
    half = plan.narrow is not None and plan.narrow.dtype == "float16"
    if half and plan.count(Action.NARROW) and np.isfinite(found.sqnr):
        yield (
            "with every value rounded, as hardware that computes in the type does, "
            f"the worst output has an SQNR of {found.sqnr:.1f} dB on {found.samples} samples; onnxruntime on "
            "CPUs rounds less often"
        )


def _told(plan: Plan) -> Iterator[str]:
    """What the user should know of the result."""
    assert plan.narrow is not None
    if plan.narrow.dtype == "float16" and plan.count(Action.NARROW):
        yield (
            "onnxruntime computes most of float16 in float32 on CPUs, with Casts: the file is smaller there, not "
            "faster; float16 is meant for GPUs and NPUs"
        )
    if plan.narrow.dtype == "bfloat16":
        yield (
            "onnxruntime has no kernels for bfloat16 on CPUs but those that move values: weights are stored as "
            "bfloat16 and computed with in float32, so the file is smaller, not faster"
        )
    limited = [constant for constant in plan.narrow.constants if constant.limit is not None]
    if limited:
        yield (
            f"{len(limited)} constants that stand for infinity were cut off at ±{limited[0].limit:g} "
            f"(first: '{limited[0].name}')"
        )
