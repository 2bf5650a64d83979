"""An analysis with every field set."""

from __future__ import annotations

from quantcli.report.analysis import Analysis, ExcludeStep, LayerSensitivity
from quantcli.report.facts import ModelFacts
from quantcli.report.schema import DataFacts


def analysis(name: str = "conv_1", *, many: int = 2, synthetic: bool = False) -> Analysis:
    layers = tuple(
        LayerSensitivity(
            node=name if number == 0 else f"{name}_{number}", op="Conv", position=number,
            noise=1e-3 / (number + 1),
            share=0.5 / (number + 1), gain=3.0 / (number + 1), sqnr=31.0, activation_noise=8e-4, weight_noise=2e-4,
            cause="outlier channels", evidence=f"channel 3 of '{name}' reaches 40", remedy=f"--exclude '{name}'",
            cost_ms=0.031, cost_bytes=12_000,
        )
        for number in range(many)
    )  # fmt: skip
    return Analysis(
        tools={"quantcli": "0.1.0"}, command="quantcli analyze m.onnx --data c.npz",
        model=ModelFacts(name="m.onnx", sha256="0" * 64, bytes=4000, opset=13, ir_version=7),
        data=DataFacts(name="eval.npz", samples=64, synthetic=synthetic), threads=1, outputs=("logits",),
        sqnr=27.0, sqnr_predicted=27.1, checks=0.2, layers=layers,
        exclude=(
            ExcludeStep(selector=name, predicted=30.0, measured=29.9, cost_ms=0.03, cost_bytes=12_000),
            ExcludeStep(selector="it's", predicted=30.5),
        ),
        notes=(f"a note on {name}",),
    )  # fmt: skip


def bare() -> Analysis:
    return Analysis(
        model=ModelFacts(name="m.onnx", sha256="0" * 64, bytes=4000, opset=13, ir_version=7),
        data=DataFacts(name="eval.npz", samples=1, synthetic=False), threads=1, outputs=("y",), sqnr=float("inf"),
        sqnr_predicted=float("inf"), layers=(),
    )  # fmt: skip
