"""Write manifest.json: what each file is, and the figures to hold a quantizer to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from training.measure import correct, logits_of, reference

CALIB, EVAL, LABELS = "data/digits_calib.npz", "data/digits_eval.npz", "data/digits_eval_labels.npy"

MODELS = {
    "digits_cnn": "CNN with BatchNormalization nodes, a residual Add and a Concat",
    "digits_mobilenet": "inverted residuals: depthwise convolutions, ReLU6, Add; BatchNormalization folded",
    "digits_transformer": "vision transformer: LayerNormalization, attention, Gelu",
}

EXPECTED: dict[str, dict[str, float]] = {
    "digits_cnn": {"sqnr_db_min": 35.5, "top1_drop_points_max": 1.0},
    "digits_mobilenet": {"sqnr_db_min": 23.8, "top1_drop_points_max": 1.0},
    "digits_transformer": {"sqnr_db_min": 28.0, "top1_drop_points_max": 1.0},
}
"""What quantcli's default int8 must reach on the evaluation data; the tests hold it to that."""

LICENCES = [
    {
        "what": "models (*.onnx)",
        "licence": "Apache-2.0",
        "source": "trained by make_samples.py",
    },
    {
        "what": "handwritten digits in data/*",
        "licence": "CC-BY-4.0",
        "source": "E. Alpaydin, C. Kaynak (1998): Optical Recognition of Handwritten Digits, UCI Machine "
        "Learning Repository, https://doi.org/10.24432/C50P49, by way of sklearn.datasets.load_digits",
        "changes": "enlarged, distorted, coloured, painted over patches of photographs",
    },
    {
        "what": "photograph china.jpg in the backgrounds of data/*",
        "licence": "CC-BY-2.0",
        "source": "danielbuechele, https://www.flickr.com/photos/danielbuechele/6061409035/, by way of "
        "sklearn.datasets.load_sample_images",
        "changes": "cut into patches, changed in brightness and contrast, noise added, painted over",
    },
    {
        "what": "photograph flower.jpg in the backgrounds of data/*",
        "licence": "CC-BY-2.0",
        "source": "vultilion, https://www.flickr.com/photos/vultilion/6056698931/, by way of "
        "sklearn.datasets.load_sample_images (whose notice names danielbuechele and links to vultilion)",
        "changes": "cut into patches, changed in brightness and contrast, noise added, painted over",
    },
]


def write_manifest(folder: Path, made_with: dict[str, str] | None) -> dict[str, Any]:
    """Measure the models in `folder` and write `folder/manifest.json`; returns its content.

    Args:
        folder: holds the models, and the data in `data/`.
        made_with: versions of the packages that made the files; None keeps those of the present manifest.
    """
    path = folder / "manifest.json"
    if made_with is None:
        made_with = json.loads(path.read_text(encoding="utf-8"))["made_with"]
    calib, images = (np.load(folder / name)["image"] for name in (CALIB, EVAL))
    labels = np.load(folder / LABELS)
    manifest = {
        "schema": 1,
        "made_with": made_with,
        "licences": LICENCES,
        "data": {
            CALIB: _describe(folder / CALIB, len(calib)),
            EVAL: _describe(folder / EVAL, len(images)),
            LABELS: _describe(folder / LABELS, len(labels)),
        },
        "models": [],
    }
    for name, summary in MODELS.items():
        file = folder / f"{name}.onnx"
        model = onnx.load(file)
        hits = correct(logits_of(file, images), labels)
        manifest["models"].append(
            {
                "name": name,
                "summary": summary,
                "file": file.name,
                "sha256": _sha256(file),
                "bytes": file.stat().st_size,
                "opset": model.opset_import[0].version,
                "ir_version": model.ir_version,
                "input": "image",
                "output": "logits",
                "calibration": CALIB,
                "evaluation": EVAL,
                "labels": LABELS,
                "float": {
                    "samples": len(labels),
                    "correct": hits,
                    "top1_percent": round(100 * hits / len(labels), 2),
                },
                "reference_onnxruntime": reference(file, calib, images, labels),
                "expected": EXPECTED[name],
            }
        )
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _describe(path: Path, samples: int) -> dict[str, Any]:
    return {"sha256": _sha256(path), "bytes": path.stat().st_size, "samples": samples}
