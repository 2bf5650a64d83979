"""Placement by measurement: what is tried, what is adopted, what is told. Times are made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.pipeline import placement, trial_forms
from quantcli.pipeline.placement import choose_placement
from quantcli.pipeline.placement_verdict import PlacementVerdict
from quantcli.pipeline.source import load_float_model
from quantcli.pipeline.trial_forms import TrialForms, TrialPlan, TrialSessions
from quantcli.pipeline.types import DataOptions, RunOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.choices import OPTIONS, Choices
from quantcli.quantize.plan import plan_from_json
from quantcli.quantize.planner import make_plan, observed_tensors
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.bench import Ratio
from quantcli.runtime.session import Session, SessionSettings

RNG = np.random.default_rng(23)

CONV_POOL = """g (float[N,3,16,16] x) => (float[N,8] y) {
    a = Conv <pads = [1,1,1,1]> (x, w0) b = AveragePool <kernel_shape = [3,3]> (a)
    c = Conv <pads = [1,1,1,1]> (b, w1) d = AveragePool <kernel_shape = [3,3]> (c)
    e = Conv (d, w1) p = GlobalAveragePool (e) y = Flatten (p)
}"""

CONV_SILU = """g (float[N,3,16,16] x) => (float[N,8] y) {
    a = Conv <pads = [1,1,1,1]> (x, w0) s = Sigmoid (a) b = Mul (a, s)
    c = Conv <pads = [1,1,1,1]> (b, w1) t = Sigmoid (c) d = Mul (c, t)
    e = Conv (d, w1) p = GlobalAveragePool (e) y = Flatten (p)
}"""

GROUPED = """g (float[N,3,16,16] x) => (float[N,8] y) {
    a = Conv <pads = [1,1,1,1]> (x, w0) b = Conv <pads = [1,1,1,1], group = 2> (a, w2)
    c = Conv <pads = [1,1,1,1]> (b, w1) d = Add (a, c)
    e = Conv (d, w1) p = GlobalAveragePool (e) y = Flatten (p)
}"""

ALWAYS = {"stem=float", "last_layer=float", "pools=float"}
"""Alternatives that each of the graphs has."""


def save(folder: Path, text: str) -> Path:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 13]>\n{text}')
    used = {name for node in proto.graph.node for name in node.input}
    for name, shape in (("w0", (8, 3, 3, 3)), ("w1", (8, 8, 3, 3)), ("w2", (8, 4, 3, 3))):
        if name in used:
            array = RNG.normal(0, 0.2, shape).astype(np.float32)
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    onnx.save(proto, folder / "m.onnx")
    np.savez(folder / "calib.npz", x=RNG.normal(0, 1, (8, 3, 16, 16)).astype(np.float32))
    return folder / "m.onnx"


def choose(path: Path, recipe: Recipe | None = None, **options: object) -> PlacementVerdict:
    data = DataOptions(specs=(str(path.parent / "calib.npz"),))
    options = {"clock": lambda: 0.0, **options}
    return choose_placement(path, recipe or Recipe(), data, RunOptions(), SilentProgress(), **options)


Speed = Callable[[Choices], float]


@pytest.fixture
def timed_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[Speed], None]:
    """Makes every form take the time that a function of its choices says; the float model takes 1."""
    forms: dict[int, Choices] = {}
    build = TrialForms.sessions

    def sessions(self: TrialForms, trial: TrialPlan) -> TrialSessions:
        made = build(self, trial)
        forms[id(made.timed)] = trial.plan.choices
        return made

    def set_speed(speed: Speed) -> None:
        class Rounds:
            measured = 0.0

            def __init__(self, sessions: tuple[Session, ...], *_: object, **__: object) -> None:
                self.sessions, self.count = sessions, 0
                self.times = [speed(forms[id(each)]) if id(each) in forms else 1.0 for each in sessions]

            def measure(self) -> None:
                self.count += 1

            def ratio(self, of: int, to: int) -> Ratio:
                found = self.times[of] / self.times[to]
                return Ratio(ratio=found, low=found, high=found)

        monkeypatch.setattr(placement, "Rounds", Rounds)

    monkeypatch.setattr(TrialForms, "sessions", sessions)
    return set_speed


def tried(verdict: PlacementVerdict) -> set[str]:
    return {f"{found.field}={found.value}" for found in verdict.measurements}


def test_every_option_but_the_static_ones_and_float_is_an_alternative() -> None:
    options = {(name, value) for name, values in OPTIONS.items() for value in values[1:]}
    assert set(placement.ALTERNATIVES) == options - {("whole", "float")}


@pytest.mark.parametrize(
    ("text", "alternatives"),
    [
        (CONV_POOL, {"average_pool=convolution"}),
        (CONV_SILU, {"silu=integer"}),
        (GROUPED, {"grouped=integer", "residual=float"}),
    ],
    ids=["pools", "silu", "grouped"],
)
def test_what_is_tried_is_what_the_model_has(
    tmp_path: Path, text: str, alternatives: set[str], timed_as: Callable[[Speed], None]
) -> None:
    timed_as(lambda choices: 2.0 if choices.changed else 0.5)
    verdict = choose(save(tmp_path, text))
    assert alternatives <= tried(verdict) <= alternatives | ALWAYS
    assert verdict.choices == Choices()
    assert not verdict.notes


def test_what_is_faster_and_as_accurate_is_adopted_and_built_upon(
    tmp_path: Path, timed_as: Callable[[Speed], None]
) -> None:
    timed_as(lambda choices: 0.8 - 0.1 * len(set(choices.changed) & {"average_pool", "last_layer"}))
    verdict = choose(save(tmp_path, CONV_POOL))
    assert verdict.choices == Choices(average_pool="convolution", last_layer="float")
    assert [found.adopted for found in verdict.measurements].count(True) == 2
    assert verdict.start_ratio == Ratio(ratio=0.8, low=0.8, high=0.8)
    assert verdict.best_ratio is not None
    assert verdict.best_ratio.ratio == pytest.approx(0.6)
    assert "AveragePool as a depthwise convolution" in verdict.notes[0]
    assert not verdict.float_is_faster


def test_what_is_faster_but_less_accurate_is_not_adopted(
    tmp_path: Path, timed_as: Callable[[Speed], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "SAME_DB", -100.0)  # everything counts as less accurate
    timed_as(lambda choices: 0.1 if choices.changed else 0.8)
    assert choose(save(tmp_path, GROUPED)).choices == Choices()


@pytest.mark.parametrize(("needed", "adopted"), [(-100.0, True), (100.0, False)])
def test_what_is_as_fast_is_adopted_only_if_it_is_clearly_more_accurate(
    tmp_path: Path,
    timed_as: Callable[[Speed], None],
    monkeypatch: pytest.MonkeyPatch,
    needed: float,
    adopted: bool,
) -> None:
    monkeypatch.setattr(placement, "BETTER_DB", needed)
    monkeypatch.setattr(placement, "SAME_DB", 100.0)
    monkeypatch.setattr(placement, "SURE", -100.0)  # the sampling error is not the point here
    timed_as(lambda _: 0.8)
    assert any(found.adopted for found in choose(save(tmp_path, GROUPED)).measurements) is adopted


def test_what_is_slower_together_is_given_up(tmp_path: Path, timed_as: Callable[[Speed], None]) -> None:
    looks = iter([0.5])

    def speed(choices: Choices) -> float:
        if choices == Choices(average_pool="convolution"):
            return next(looks, 0.9)  # fast when it is tried, slower than the start when it is timed again
        return 2.0 if choices.changed else 0.8

    timed_as(speed)
    verdict = choose(save(tmp_path, CONV_POOL))
    assert verdict.choices == Choices()
    assert not any(found.adopted for found in verdict.measurements)
    assert verdict.notes == ("what was chosen one by one is slower together, so placement stays as it was",)


def test_a_model_that_no_integer_form_makes_faster_is_told_plainly(
    tmp_path: Path, timed_as: Callable[[Speed], None]
) -> None:
    timed_as(lambda choices: 1.3 if choices.changed else 1.08)
    verdict = choose(save(tmp_path, GROUPED))
    assert verdict.choices.whole == "integer"
    assert verdict.float_choices.whole == "float"
    told = "no integer form is faster than float here: the best takes 1.08 × as long (1.08 to 1.08); "
    assert verdict.sentences() == (f"{told}--float-if-faster leaves the model in float",)
    assert verdict.sentences(float_wanted=True)[0].endswith("the model is left in float")


def test_a_budget_that_is_spent_leaves_the_rest_untried_and_says_so(
    tmp_path: Path, timed_as: Callable[[Speed], None]
) -> None:
    timed_as(lambda _: 0.8)
    verdict = choose(save(tmp_path, CONV_SILU), budget_s=0.0)
    assert not verdict.measurements
    assert verdict.best_ratio is not None
    (note,) = verdict.notes
    assert note.startswith("placement ran out of time before it tried")
    assert "silu=integer" in note


def test_without_samples_nothing_is_timed(tmp_path: Path) -> None:
    verdict = choose_placement(save(tmp_path, GROUPED), Recipe(), DataOptions(), RunOptions(), SilentProgress())
    assert (verdict.choices, verdict.best_ratio) == (Choices(), None)
    assert "no samples" in verdict.notes[0]


def test_a_target_without_its_runtime_is_not_timed(tmp_path: Path) -> None:
    verdict = choose(save(tmp_path, GROUPED), Recipe(target="generic"))
    assert verdict.best_ratio is None
    assert "'generic' cannot be timed" in verdict.notes[0]


def test_a_search_starts_from_the_choices_of_the_recipe(tmp_path: Path, timed_as: Callable[[Speed], None]) -> None:
    timed_as(lambda _: 0.8)
    recipe = Recipe(choices=Choices(residual="float", last_layer="float"))
    verdict = choose(save(tmp_path, GROUPED), recipe)
    assert all(found.choices.residual == "float" for found in verdict.measurements)
    assert not tried(verdict) & {"residual=float", "last_layer=float"}


def test_real_timing_gives_ratios_with_intervals(tmp_path: Path) -> None:
    verdict = choose(save(tmp_path, CONV_POOL))
    for found in verdict.measurements:
        assert 0 < found.to_best.low <= found.to_best.ratio <= found.to_best.high
        assert found.rounds >= placement.FIRST_ROUNDS
    assert verdict.start_sqnr is not None
    assert verdict.start_sqnr > 10


SAMPLES = [{"x": RNG.normal(0, 1, (1, 3, 16, 16)).astype(np.float32)} for _ in range(2)]


def forms_of(path: Path, recipe: Recipe | None = None) -> TrialForms:
    source = load_float_model(path, "ort-cpu")
    return TrialForms(path, recipe or Recipe(), SAMPLES, SessionSettings(), source=source)


def noise(session: Session, path: Path) -> float:
    """Noise of the first sample's output relative to its signal."""
    wanted = Session(path).run(SAMPLES[0])["y"]
    return float(np.mean((session.run(SAMPLES[0])["y"] - wanted) ** 2) / np.mean(wanted**2))


def test_the_form_with_pools_as_convolutions_has_no_pool_left(tmp_path: Path) -> None:
    path = save(tmp_path, CONV_POOL)
    forms = forms_of(path)
    plans = [forms.plan(choices) for choices in (Choices(), Choices(average_pool="convolution"))]
    assert [[node.op_type for node in trial.plan.nodes].count("AveragePool") for trial in plans] == [2, 0]
    for trial in plans:
        assert noise(forms.sessions(trial).timed, path) < 0.01


def test_forms_are_judged_by_the_noise_of_activations_alone(tmp_path: Path) -> None:
    path = save(tmp_path, GROUPED)
    model = onnx.load(path)
    for weight in model.graph.initializer:
        # One large value a channel: to nearest, all others are rounded to multiples of 0.3.
        array = numpy_helper.to_array(weight).copy()
        array[:, 0, 0, 0] = 40.0
        weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(model, path)
    forms = forms_of(path)
    made = forms.sessions(forms.plan(Choices()))
    assert noise(made.judged, path) < noise(made.timed, path)


def test_forms_with_coarse_weights_are_judged_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_forms, "_FINE_BITS", 9)
    forms = forms_of(save(tmp_path, GROUPED))
    made = forms.sessions(forms.plan(Choices()))
    assert made.judged is made.timed


def test_a_plan_from_a_file_prepares_the_same_graph(tmp_path: Path) -> None:
    path = save(tmp_path, CONV_SILU)
    choices = Choices(silu="integer", stem="float")
    source = load_float_model(path, "ort-cpu", choices=choices)
    plan = plan_from_json(make_plan(source.view, Recipe(choices=choices)).to_json())
    again = load_float_model(path, "ort-cpu", choices=plan.choices)
    assert again.prepared.to_bytes() == source.prepared.to_bytes()
    assert make_plan(again.view, Recipe(choices=plan.choices)) == plan
    assert "Sigmoid" in {node.op_type for node in again.view.nodes}


def test_what_a_calibration_does_not_know_is_not_tried(tmp_path: Path, timed_as: Callable[[Speed], None]) -> None:
    timed_as(lambda _: 0.8)
    path = save(tmp_path, GROUPED)
    source = load_float_model(path, "ort-cpu")
    observed = observed_tensors(make_plan(source.view, Recipe()))
    assert "grouped=integer" in tried(choose(path))
    assert "grouped=integer" not in tried(choose(path, observed=[name for name in observed if name != "a"]))
