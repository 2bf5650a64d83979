"""What the steps of ``quantcli run`` depend on, as texts that can be compared: digests of contents, and options.

A step is made again exactly if one of these texts, or a digest of what it wrote, is another. Names of folders,
times and hosts are not among them. Samples of a Python function have no content but themselves, so they are
read once and their fingerprint is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from quantcli._version import __version__
from quantcli.data.fingerprint import Fingerprint
from quantcli.data.images import listed_files
from quantcli.data.natural import natural_sorted
from quantcli.data.spec import DataSpec, parse_data_spec
from quantcli.errors import ModelError
from quantcli.graph.model_io import model_digest
from quantcli.pipeline.compare import model_inputs
from quantcli.pipeline.run_types import Job, Step
from quantcli.pipeline.samples import open_samples
from quantcli.pipeline.types import DataOptions, RunOptions
from quantcli.runtime.session import runtime_version

MISSING = "missing"
"""Stands for the digest of a file that is not there."""


def step_inputs(job: Job, step: Step) -> dict[str, str]:
    """All that the result of a step depends on: name → digest, version, or value of an option.

    Raises:
        ModelError, DataError: The model or the samples of a function are unreadable.
    """
    found = {"model": model_digest(job.convert.model)}
    if step is Step.CALIBRATE:
        assert job.calibrate is not None
        found |= data_digests(job.calibrate.data, job.convert.model, job.calibrate.run)
    elif step is Step.CONVERT:
        if job.convert.calibration is not None:
            found["calibration"] = file_digest(job.convert.calibration)
        found |= data_digests(job.convert.data, job.convert.model, job.convert.run)
        evaluated = data_digests(job.convert.eval_data, job.convert.model, job.convert.run)
        found |= {f"evaluation {name}": text for name, text in evaluated.items()}
    else:
        found["quantized model"] = model_file_digest(job.compare.quantized)
        found |= data_digests(job.compare.data, job.convert.model, job.compare.run)
    files = job.files.get(step, ())
    found |= _numbered((f"file {path.name}", content_digest(path)) for path in files)
    found |= {name: text for name, text in sorted(job.options.get(step, {}).items()) if text}
    tools = {"quantcli": __version__, "onnxruntime": runtime_version(), "numpy": version("numpy")}
    return found | tools


def data_digests(data: DataOptions, model: Path, run: RunOptions) -> dict[str, str]:
    """Digest of each specification: of its files, of the samples of a function, the text of made-up ones."""
    specs = [parse_data_spec(text) for text in data.specs]
    found = _numbered((f"data {spec.label}", _spec_digest(spec)) for spec in specs if spec.kind != "function")
    if any(spec.kind == "function" for spec in specs):
        fingerprint = Fingerprint()
        for _ in fingerprint.watch(open_samples(data, model_inputs(model, run), model)):
            pass
        labels = ", ".join(spec.label for spec in specs if spec.kind == "function")
        found[f"data {labels}"] = fingerprint.hexdigest()
    return found


def _spec_digest(spec: DataSpec) -> str:
    """Content, and how the specification says to read it."""
    before, _, after = spec.text.rpartition(spec.target)
    content = spec.target if spec.kind == "random" else content_digest(spec.path)
    return f"{before}{content}{after}"


def content_digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the names and digests of its files; of a list, of what it lists, too."""
    if path.is_dir():
        files = natural_sorted([p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")], path)
        rows = [f"{file.relative_to(path).as_posix()} {file_digest(file)}" for file in files]
    elif path.suffix.lower() == ".txt" and path.is_file():
        rows = [file_digest(path), *(file_digest(file) for file in _listed(path))]
    else:
        return file_digest(path)
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()


def _listed(path: Path) -> Sequence[Path]:
    """Files that a text file names; none where its lines are something else, such as labels."""
    files = [line for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    if not files or not all((path.parent / line.strip()).is_file() for line in files):
        return ()
    return listed_files(path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file as hex; ``MISSING`` where there is none."""
    if not path.is_file():
        return MISSING
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_file_digest(path: Path) -> str:
    """``model_digest`` with external data; ``MISSING`` where there is no such model, or it is no longer one."""
    if not path.is_file():
        return MISSING
    try:
        return model_digest(path)
    except ModelError:
        return file_digest(path)


def step_outputs(job: Job, step: Step) -> dict[str, str]:
    """Digests of what a step wrote, by name."""
    return {path.as_posix(): output_digest(path) for path in job.outputs(step)}


def output_digest(path: Path) -> str:
    """Digest of an output: with its external data where it is a model."""
    return model_file_digest(path) if path.suffix == ".onnx" else file_digest(path)


def _numbered(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A mapping; a name that comes again gets a number."""
    found: dict[str, str] = {}
    for name, text in pairs:
        count = sum(key.partition(" #")[0] == name for key in found)
        found[f"{name} #{count + 1}" if count else name] = text
    return found
