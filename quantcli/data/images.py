"""Images: a folder (recursively), a list in a text file, or one file. Needs Pillow, the extra ``images``.

``x = (pixel · scale − mean) / std`` in float32, after resizing (bilinear with antialiasing, as torchvision on
PIL images), cropping the centre and ordering the channels. Orientation tags are not applied: most training
pipelines do not apply them either.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from quantcli.data.adapt import FLOATS, model_layout, normalisation
from quantcli.data.base import Dim, InputSpec, Sample, shape_text
from quantcli.data.candidate import Candidate, failed, only_target
from quantcli.data.natural import natural_sorted
from quantcli.data.options import ImageOptions, Size
from quantcli.data.problems import Problem, printable
from quantcli.errors import DataError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_COUNT = {"rgb": 3, "bgr": 3, "gray": 1}


def image_files(folder: Path) -> list[Path]:
    """The images of a directory and those below it, natural order, hidden ones left out."""
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    return natural_sorted(found, folder)


def listed_files(path: Path) -> list[Path]:
    """The images that a text file lists, one path a line, relative to the file; empty lines do not count.

    Raises:
        DataError: D103, the list cannot be read; D106, it is empty.
    """
    label = printable(path.name)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("D103", f"list '{label}' cannot be read: {error}") from error
    found = [path.parent / line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError("D106", f"list '{label}' names no images", hint="write one path a line")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """How an image file becomes a feed: everything decided.

    Attributes:
        resize: See :class:`~quantcli.data.options.ImageOptions`.
        crop: See there.
        channels: "rgb", "bgr" or "gray".
        layout: "nchw" or "nhwc".
        dtype: Of the input.
        scale: Multiplied first; None for inputs that take pixels as they are.
        mean: Subtracted next, per channel.
        std: Divided by at last, per channel.
    """

    resize: Size | None
    crop: Size | None
    channels: str
    layout: str
    dtype: np.dtype
    scale: np.float32 | None
    mean: np.ndarray
    std: np.ndarray

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of what an image of this size becomes.

        Raises:
            ValueError: It is too small to be cropped.
        """
        width, height = resized(width, height, self.resize)
        if self.crop is None:
            return width, height
        rows, columns = _pair(self.crop)
        if rows > height or columns > width:
            raise ValueError(f"gives {height}x{width} pixels (height x width), too few for crop={rows}x{columns}")
        return columns, rows

    def pixels(self, image: Any) -> np.ndarray:
        """A PIL image as uint8, height x width x channels, resized and cropped."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of transparency, which is dropped
            image = image.convert("L" if self.channels == "gray" else "RGB")
        width, height = image.size
        size = resized(width, height, self.resize)
        if size != image.size:
            image = image.resize(size, _pillow().Resampling.BILINEAR)
        pixels = np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if self.crop is not None:
            rows, columns = _pair(self.crop)
            # torchvision's center_crop rounds half to even
            top, left = round((pixels.shape[0] - rows) / 2.0), round((pixels.shape[1] - columns) / 2.0)
            pixels = pixels[top : top + rows, left : left + columns]
        return pixels[..., ::-1] if self.channels == "bgr" else pixels

    def feed(self, image: Any) -> np.ndarray:
        """A PIL image as the complete feed of one call."""
        values = self.pixels(image)
        if self.scale is not None:
            values = (values.astype(np.float32) * self.scale - self.mean) / self.std
        if self.layout == "nchw":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values[None], dtype=self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """Images for one input.

    Attributes:
        label: Printable name, without directories.
        input: Name of the input.
        files: ``group`` consecutive ones per sample.
        plan: How each becomes a feed.
        group: Images that the model takes at once.
    """

    label: str
    input: str
    files: tuple[Path, ...]
    plan: ImagePlan
    group: int = 1
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    executes_code: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one input."""
        return (self.input,)

    @property
    def length(self) -> int:
        """Number of samples."""
        return len(self.files) // self.group

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Samples ``indices`` in this order, all for None; see :class:`~quantcli.data.base.Source`."""
        for index in range(self.length) if indices is None else indices:
            first = index * self.group
            feeds = [self._feed(path) for path in self.files[first : first + self.group]]
            yield {self.input: feeds[0] if self.group == 1 else np.concatenate(feeds)}

    def _feed(self, path: Path) -> np.ndarray:
        try:
            with _pillow().open(path) as image:
                return self.plan.feed(image)
        except _errors() as error:
            raise DataError("D111", f"image '{printable(path.name)}' {_unreadable(error)}") from error


def open_images(
    label: str, files: Sequence[Path], targets: tuple[InputSpec, ...], options: ImageOptions
) -> Candidate:
    """Images for the only target; the header of every one is read, to see that its size fits."""
    target = only_target(targets, label)
    if isinstance(target, Problem):
        return failed(target)
    provides = frozenset({target.name})
    try:
        _pillow()
    except DataError as error:
        return failed(Problem.of(error), provides=provides)
    plan = plan_images(target, label, options.resolved())
    if isinstance(plan, Problem):
        return failed(plan, provides=provides)
    problems = _check_files(files, target, plan, label)
    if problems:
        return failed(*problems, provides=provides)
    group = target.shape[0] if target.shape and isinstance(target.shape[0], int) else 1
    rest = len(files) % group
    if len(files) < group:
        return failed(
            Problem(
                code="D107",
                message=f"'{label}' holds {len(files)} images, input '{target.name}' takes {group} at once",
            ),
            provides=provides,
        )
    notes = (
        (f"'{label}': the last {rest} images are dropped, as input '{target.name}' takes {group} at once",)
        if rest
        else ()
    )
    source = ImageSource(label=label, input=target.name, files=tuple(files), plan=plan, group=group, notes=notes)
    return Candidate(source=source, provides=provides)


def plan_images(spec: InputSpec, label: str, options: ImageOptions) -> ImagePlan | Problem:
    """Decide what the user left open from the input's shape and type, or say what must be said.

    Args:
        spec: The input.
        label: Names the images in messages.
        options: Presets filled in.
    """

    def problem(why: str, hint: str | None = None) -> Problem:
        return Problem(
            code="D107", message=f"input '{spec.name}' expects {spec}; '{label}' holds images: {why}", hint=hint
        )

    if spec.shape is None or len(spec.shape) != 4:
        return problem("images are fed as [N,channels,height,width] or [N,height,width,channels]")
    layout = options.layout or model_layout(spec)
    if layout is None:
        return problem("its shape does not tell where the channels are", "add ?layout=nchw or ?layout=nhwc")
    wanted = spec.shape[1 if layout == "nchw" else 3]
    channels = options.channels or ("gray" if wanted == 1 else "rgb")
    count = _COUNT[channels]
    if isinstance(wanted, int) and wanted != count:
        return problem(f"{channels} images have {count} channels, not {wanted}, with layout {layout}")
    for name, values in (("mean", options.mean), ("std", options.std)):
        if values is not None and len(values) not in (1, count):
            return problem(f"{name} has {len(values)} values, for {count} channels")
    if spec.dtype in FLOATS:
        if not options.normalises:
            return problem(
                "how pixels become floats is not said",
                "add ?scale=1/255, ?scale=1 for 0 to 255, or ?preprocess=imagenet, as the model was trained",
            )
        scale, mean, std = normalisation(options, 3, 2)
    elif spec.dtype == "uint8" and not options.normalises:
        scale, mean, std = None, np.zeros(()), np.ones(())
    else:
        return problem(f"pixels {'with scale, mean and std ' if options.normalises else ''}are not {spec.dtype}")
    return ImagePlan(
        resize=options.resize,
        crop=options.crop,
        channels=channels,
        layout=layout,
        dtype=np.dtype(spec.dtype),
        scale=scale,
        mean=mean,
        std=std,
    )


def _check_files(files: Sequence[Path], spec: InputSpec, plan: ImagePlan, label: str) -> list[Problem]:
    """What is wrong with the images, each cause once with the number of files that share it."""
    assert spec.shape is not None
    rows, columns = spec.shape[2:] if plan.layout == "nchw" else spec.shape[1:3]
    causes: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    for path in files:
        cause = _cause(path, spec, plan, (rows, columns))
        if cause is not None:
            causes[cause] += 1
            first.setdefault(cause, printable(path.name))
    return [
        Problem(
            code=code,
            message=f"image '{first[code, why]}'{f' (and {count - 1} more)' if count > 1 else ''} "
            f"of '{label}' {why}",
            hint=f"add ?resize={rows}x{columns}, or ?resize=N&crop=M, as the model was trained"
            if code == "D107"
            else None,
        )
        for (code, why), count in causes.most_common(5)
    ]


def _cause(path: Path, spec: InputSpec, plan: ImagePlan, wanted: tuple[Dim, Dim]) -> tuple[str, str] | None:
    """(code, what is wrong with one image), from its header."""
    try:
        with _pillow().open(path) as image:
            mode, size = image.mode, image.size
    except _errors() as error:
        return "D111", _unreadable(error)
    if mode.startswith(("I", "F")):
        return "D111", f"has pixels of mode {mode}, which are not 8 bits wide"
    try:
        width, height = plan.size(*size)
    except ValueError as error:
        return "D107", str(error)
    if all(not isinstance(want, int) or want == got for want, got in zip(wanted, (height, width), strict=True)):
        return None
    return "D107", (
        f"gives {height}x{width} pixels (height x width), input '{spec.name}' expects {shape_text(wanted)}"
    )


def resized(width: int, height: int, resize: Size | None) -> tuple[int, int]:
    """(width, height) after resizing; the longer side is cut to whole pixels, as torchvision does."""
    if resize is None:
        return width, height
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    if width <= height:
        return resize, math.floor(resize * height / width)
    return math.floor(resize * width / height), resize


def _pair(size: Size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _pillow() -> ModuleType:
    """Pillow's Image module.

    Raises:
        DataError: D111, it is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "D111", "images need Pillow, which is not installed", hint="pip install 'quantcli[images]'"
        ) from error
    return Image


def _errors() -> tuple[type[Exception], ...]:
    """What Pillow raises on files that it cannot read."""
    return (OSError, ValueError, SyntaxError, _pillow().DecompressionBombError)


def _unreadable(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    if "cannot identify image file" in reason:
        reason = "it is of no kind that Pillow knows"
    return f"cannot be read: {printable(reason)}"
