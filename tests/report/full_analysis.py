"""An analysis in which every part is filled."""

from quantcli.report.analysis import Analysis, ExcludeStep, LayerSensitivity
from quantcli.report.schema import DataFacts, ModelFacts

CAUSES = ("outlier channels", "clipping", "rounding", "weights", "bias")


def analysis(name: str = "/features/conv", layers: int = 40, *, synthetic: bool = False) -> Analysis:
    weights = [0.8**i for i in range(layers)]
    ranked = tuple(
        LayerSensitivity(
            node=f"{name}{i}", op="Conv", position=(7 * i) % layers, noise=1e-3 * weight,
            share=weight / sum(weights), gain=3.0 * weight, sqnr=30.0 + i, activation_noise=7e-4 * weight,
            weight_noise=3e-4 * weight, cause=CAUSES[i % 5],
            evidence=f"channel 3 of '{name}{i}' reaches 12 times further",
            remedy=f"--exclude {name}{i}", cost_ms=None if i % 3 == 2 else 0.01 * i, cost_bytes=1200 * i,
        )
        for i, weight in enumerate(weights)
    )  # fmt: skip
    return Analysis(
        tools={"quantcli": "0.1", "onnxruntime": "1.32.0"},
        command="quantcli analyze net.onnx --data calib.npz",
        model=ModelFacts(name="net.onnx", sha256="a" * 64, bytes=4_948_000, opset=13, ir_version=8),
        data=DataFacts(name="calib.npz", samples=32, synthetic=synthetic),
        threads=1,
        outputs=("logits",),
        sqnr=28.4,
        sqnr_predicted=28.6,
        checks=0.4,
        layers=ranked,
        exclude=tuple(
            ExcludeStep(
                selector=f"{name}{i}", predicted=29.0 + i, measured=None if i == 3 else 28.8 + i, cost_ms=0.02,
                cost_bytes=3400,
            )
            for i in range(min(5, layers))
        ),
        notes=("the prediction was checked with 4 runs",),
    )  # fmt: skip
