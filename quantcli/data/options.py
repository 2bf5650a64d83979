"""Options of data specifications: how rows become samples and pixels become inputs.

A pixel becomes ``x = (pixel · scale − mean) / std`` in float32, in this order, after the channel order was
settled; ``mean`` and ``std`` are thus in the unit of the *scaled* pixel and in the order of the model's
channels. (The convention of torchvision's ToTensor + Normalize.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import cast

from quantcli.data.problems import did_you_mean, quoted
from quantcli.errors import UsageError

Size = int | tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How a pixel becomes input; None where the user said nothing.

    Attributes:
        resize: Length of the shorter side in pixels, or (height, width).
        crop: Side or (height, width) of the centre to keep, in pixels.
        mean: Subtracted after scaling; one value or one per channel.
        std: Divided by at last; one value or one per channel.
        scale: Multiplied first.
        layout: "nchw" or "nhwc". Of images: what the model takes. Of arrays: what the file holds.
        channels: "rgb", "bgr" or "gray", in the order that the model takes.
        preprocess: Name of a preset that gives what is not said otherwise.
    """

    resize: Size | None = None
    crop: Size | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    layout: str | None = None
    channels: str | None = None
    preprocess: str | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the options that were said."""
        return tuple(name for name in _IMAGE_NAMES if getattr(self, name) is not None)

    @property
    def normalises(self) -> bool:
        """Whether values are changed: scale, mean or std was said."""
        return self.scale is not None or self.mean is not None or self.std is not None

    def over(self, base: ImageOptions) -> ImageOptions:
        """These options, and those of ``base`` where nothing is said here."""
        merged = {
            name: getattr(self, name) if getattr(self, name) is not None else getattr(base, name)
            for name in _IMAGE_NAMES
        }
        return ImageOptions(**merged)

    def resolved(self) -> ImageOptions:
        """The preset filled in."""
        return self if self.preprocess is None else self.over(PRESETS[self.preprocess])


_IMAGE_NAMES = tuple(entry.name for entry in fields(ImageOptions))

PRESETS: dict[str, ImageOptions] = {
    # torchvision's classification reference: shorter side 256, centre 224, ImageNet statistics.
    "imagenet": ImageOptions(
        resize=256,
        crop=224,
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        channels="rgb",
    ),
}

LAYOUTS = ("nchw", "nhwc")
CHANNELS = ("rgb", "bgr", "gray")
ROWS = ("batch", "feed")

ARRAY_OPTIONS = ("rows", "layout", "scale", "mean", "std")
IMAGE_OPTIONS = _IMAGE_NAMES
RANDOM_OPTIONS = ("seed", "low", "high")
ALL_OPTIONS = tuple(dict.fromkeys((*ARRAY_OPTIONS, *IMAGE_OPTIONS, *RANDOM_OPTIONS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecOptions:
    """The options of one data specification; None where the user said nothing.

    Attributes:
        rows: "batch": a row lacks the batch axis; "feed": a row is the complete feed of one call.
        image: How pixels become input.
        seed: Of random data.
        low: Smallest random value.
        high: Upper end of random values, not included.
    """

    rows: str | None = None
    image: ImageOptions = field(default_factory=ImageOptions)
    seed: int | None = None
    low: float | None = None
    high: float | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the options that were said."""
        own = tuple(name for name in ("rows", *RANDOM_OPTIONS) if getattr(self, name) is not None)
        return (*own, *self.image.given)


def parse_options(values: Mapping[str, str], where: str) -> SpecOptions:
    """Options from their texts.

    Args:
        values: Text by option name.
        where: What they belong to, for messages.

    Raises:
        UsageError: D102, an option is unknown or its value is not of its kind.
    """
    for name in values:
        if name not in ALL_OPTIONS:
            raise UsageError(
                "D102",
                f"{where} has the unknown option '{name}'{did_you_mean(name, ALL_OPTIONS)}",
                hint=f"options are {', '.join(ALL_OPTIONS)}",
            )
    own = {name: text for name, text in values.items() if name not in _IMAGE_NAMES}
    return SpecOptions(
        rows=_choice("rows", own["rows"], ROWS) if "rows" in own else None,
        image=parse_image_options({name: text for name, text in values.items() if name in _IMAGE_NAMES}),
        seed=_seed(own["seed"]) if "seed" in own else None,
        low=_number("low", own["low"]) if "low" in own else None,
        high=_number("high", own["high"]) if "high" in own else None,
    )


def parse_image_options(values: Mapping[str, str]) -> ImageOptions:
    """Image options from their texts, as the command line and data specifications write them.

    Args:
        values: Text by option name: resize and crop ("256", "256x320": height x width), mean and std
            ("0.5" or "0.485,0.456,0.406"), scale ("1/255"), layout, channels, preprocess.

    Raises:
        UsageError: D102, an option is unknown or its value is not of its kind.
    """
    parsed: dict[str, object] = {}
    for name, text in values.items():
        if name in ("resize", "crop"):
            parsed[name] = _size(name, text)
        elif name in ("mean", "std"):
            parsed[name] = _numbers(name, text)
        elif name == "scale":
            parsed[name] = _number(name, text)
        elif name == "layout":
            parsed[name] = _choice(name, text, LAYOUTS)
        elif name == "channels":
            parsed[name] = _choice(name, text, CHANNELS)
        elif name == "preprocess":
            parsed[name] = _choice(name, text, tuple(PRESETS))
        else:
            raise UsageError("D102", f"unknown image option '{name}'{did_you_mean(name, _IMAGE_NAMES)}")
    if 0.0 in cast(tuple[float, ...], parsed.get("std", ())):
        raise UsageError("D102", f"option 'std' is '{values['std']}': it divides and must not be 0")
    if parsed.get("scale") == 0.0:
        raise UsageError("D102", "option 'scale' is 0: every input would be the same")
    return ImageOptions(**parsed)  # type: ignore[arg-type]  # each value was made by its own parser


def _choice(name: str, text: str, allowed: tuple[str, ...]) -> str:
    value = text.strip().lower()
    if value not in allowed:
        raise UsageError(
            "D102",
            f"option '{name}' is '{text}'{did_you_mean(value, allowed)}",
            hint=f"it takes {quoted(allowed)}",
        )
    return value


def _number(name: str, text: str) -> float:
    """A finite number or a fraction ("1/255"), divided in float64."""
    head, slash, tail = text.partition("/")
    try:
        value = float(head) / float(tail) if slash else float(head)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(
            "D102", f"option '{name}' is '{text}', which is no number", hint="write 0.5, 1e-3 or 1/255"
        )
    return value


def _numbers(name: str, text: str) -> tuple[float, ...]:
    return tuple(_number(name, part) for part in text.split(","))


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UsageError("D102", f"option 'seed' is '{text}', which is no whole number ≥ 0")
    return int(text)


def _size(name: str, text: str) -> Size:
    parts = text.lower().split("x")
    if not (1 <= len(parts) <= 2 and all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts)):
        raise UsageError(
            "D102",
            f"option '{name}' is '{text}', which is no size in pixels",
            hint="write 256 (shorter side) or 256x320 (height x width)",
        )
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
