"""Which kind of source a data specification means, and which options that kind takes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from quantcli.data.base import InputSpec
from quantcli.data.candidate import Candidate, failed
from quantcli.data.directory import array_files, open_directory
from quantcli.data.fit import ArrayOptions
from quantcli.data.functions import open_function
from quantcli.data.images import SUFFIXES, image_files, listed_files, open_images
from quantcli.data.npz import open_npy, open_npz
from quantcli.data.options import ARRAY_OPTIONS, IMAGE_OPTIONS, RANDOM_OPTIONS, ImageOptions
from quantcli.data.problems import Problem, printable, quoted
from quantcli.data.spec import DataSpec
from quantcli.data.synthetic import open_random
from quantcli.data.testdata import open_test_data, test_data_sets
from quantcli.errors import DataError, UsageError

_TAKES = {
    "npz": ARRAY_OPTIONS,
    "npy": ARRAY_OPTIONS,
    "directory of arrays": ARRAY_OPTIONS,
    "test data": (),
    "images": IMAGE_OPTIONS,
    "image list": IMAGE_OPTIONS,
    "image": IMAGE_OPTIONS,
    "function": (),
    "random": RANDOM_OPTIONS,
}


def open_source(
    spec: DataSpec,
    targets: tuple[InputSpec, ...],
    *,
    image: ImageOptions | None,
    alone: bool,
    symbols: Mapping[str, int],
    seed: int,
) -> Candidate:
    """Open the data that a specification means.

    Args:
        spec: The specification.
        targets: Inputs that it may feed.
        image: Preprocessing said for the whole command.
        alone: Whether the model has a single input.
        symbols: Values of symbolic dimensions, for random data.
        seed: For random data without a seed of its own.

    Raises:
        UsageError: D102, an option does not apply to this kind.
    """
    try:
        kind = detect_kind(spec)
    except DataError as error:
        provides = None if spec.name is None else frozenset({spec.name})
        return failed(Problem.of(error), provides=provides)
    _check_options(spec, kind)
    if kind == "random":
        return open_random(spec, targets, symbols, seed)
    if kind == "function":
        return open_function(spec, targets)
    path = spec.path
    if kind == "test data":
        return open_test_data(path, targets)
    if kind in ("images", "image list", "image"):
        options = spec.options.image.over(image or ImageOptions())
        return _images(kind, spec, path, targets, options)
    options = spec.options.image.over(_for_arrays(image, targets, alone))
    array_options = ArrayOptions(rows=spec.options.rows, image=options)
    if kind == "npz":
        return open_npz(path, targets, array_options)
    if kind == "npy":
        return open_npy(path, targets, array_options)
    return open_directory(path, targets, array_options)


def detect_kind(spec: DataSpec) -> str:
    """The kind of a specification, a key of the table of options.

    Raises:
        DataError: D103, the path does not exist or is of no known kind; D106, the directory holds no samples.
    """
    if spec.kind != "path":
        return spec.kind
    path = spec.path
    try:
        if path.is_dir():
            return _kind_of_directory(path, spec.label)
        if not path.exists():
            raise DataError("D103", f"'{spec.label}' does not exist", hint=_nearby(path))
    except OSError as error:
        raise DataError("D103", f"'{spec.label}' cannot be read: {error.strerror or error}") from error
    suffix = path.suffix.lower()
    if suffix in (".npz", ".npy"):
        return suffix[1:]
    if suffix == ".txt":
        return "image list"
    if suffix in SUFFIXES:
        return "image"
    raise DataError(
        "D103",
        f"'{spec.label}' is of no kind that can be read",
        hint="give .npz, .npy, a directory of them, ONNX test data, images or a .txt list of images, "
        "FILE.py:FUNCTION, or random:COUNT",
    )


def _kind_of_directory(folder: Path, label: str) -> str:
    if test_data_sets(folder):
        return "test data"
    arrays, images = bool(array_files(folder)), bool(image_files(folder))
    if arrays and images:
        raise DataError(
            "D103", f"directory '{label}' holds both arrays and images", hint="keep them in directories apart"
        )
    if arrays:
        return "directory of arrays"
    if images:
        return "images"
    raise DataError(
        "D106",
        f"directory '{label}' holds no samples",
        hint=".npz, .npy, test_data_set_*/input_0.pb, or images are looked for",
    )


def _check_options(spec: DataSpec, kind: str) -> None:
    takes = _TAKES[kind]
    wrong = [name for name in spec.options.given if name not in takes]
    if wrong:
        raise UsageError(
            "D102",
            f"data '{printable(spec.text)}': {quoted(wrong)} {'does' if len(wrong) == 1 else 'do'} not apply to "
            f"data of kind '{kind}'",
            hint=f"it takes {', '.join(takes)}" if takes else "it takes no options",
        )


def _for_arrays(image: ImageOptions | None, targets: tuple[InputSpec, ...], alone: bool) -> ImageOptions:
    """Preprocessing of the whole command, as far as it applies to arrays.

    Raises:
        UsageError: D102, it applies to images only, or it is not clear which input it is for.
    """
    if image is None or not image.given:
        return ImageOptions()
    wrong = [name for name in image.given if name not in ARRAY_OPTIONS]
    if wrong:
        raise UsageError(
            "D102",
            f"{quoted(f'--{name}' for name in wrong)} apply to images, and the data holds arrays",
            hint="arrays take --layout, --scale, --mean and --std",
        )
    if not alone:
        raise UsageError(
            "D102",
            f"{quoted(f'--{name}' for name in image.given)} do not say which input they are for",
            hint=f"write --data {targets[0].name if targets else 'NAME'}=PATH?{image.given[0]}=VALUE",
        )
    return image


def _images(
    kind: str, spec: DataSpec, path: Path, targets: tuple[InputSpec, ...], options: ImageOptions
) -> Candidate:
    try:
        files = image_files(path) if kind == "images" else listed_files(path) if kind == "image list" else [path]
    except DataError as error:
        return failed(Problem.of(error))
    return open_images(spec.label, files, targets, options)


def _nearby(path: Path) -> str:
    """Names in the same directory that are like the missing one."""
    try:
        names = sorted(child.name for child in path.parent.iterdir())
    except OSError:
        return f"the directory '{printable(path.parent.name or str(path.parent))}' does not exist either"
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"did you mean {quoted(map(printable, near))}?" if near else "check the path"
