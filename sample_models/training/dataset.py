"""Digits in the wild: real handwritten digits on patches of real photographs, 24×24 RGB.

Both sources ship with scikit-learn: `load_digits` (1797 handwritten digits of 8×8 pixels) and
`load_sample_images` (the photographs china.jpg and flower.jpg, 427×640). A digit is enlarged, turned,
sheared, moved, coloured and painted over a patch of a photograph. Nothing is downloaded.

The three parts (training, calibration, evaluation) share neither a digit nor a pixel of a photograph:
the 1797 digits are split at random per class, and the photographs are cut into tiles that are dealt to
the parts in turn. A patch lies wholly inside one tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from sklearn.datasets import load_digits, load_sample_images

SIZE = 24
"""Height and width of an image in pixels."""

CALIBRATION_SAMPLES = 192
EVALUATION_SAMPLES = 750

_TILE = 53  # 8 × 12 tiles per photograph
_PARTS_OF_TILES = ("train", "train", "calib", "train", "eval")
_GREY_LEVELS = 128  # even pixel values only: halves the size of the data files


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the data.

    Attributes:
        images: float32 [N, 3, 24, 24], `(pixel - 128) / 64`, that is −2 to 2; exact in float16.
        labels: int64 [N], 0 to 9.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def make_parts(seed: int, copies: int) -> dict[str, Part]:
    """Make the parts `train`, `calib` and `eval`.

    Args:
        seed: seeds the split and every random choice of the rendering.
        copies: how many images are rendered of each training digit; the digits of the other two parts
            are rendered once, so that their samples are independent.
    """
    digits, labels = load_digits(return_X_y=True)
    digits = (digits.reshape(-1, 8, 8) / 16.0).astype(np.float32)
    labels = labels.astype(np.int64)
    tiles = _deal_tiles([np.asarray(photo) for photo in load_sample_images().images])
    parts = {}
    for number, (name, chosen) in enumerate(sorted(_split(labels, seed).items())):
        rng = np.random.default_rng([seed, number])
        chosen = np.tile(chosen, copies if name == "train" else 1)
        images = np.stack([_render(digits[i], tiles[name], rng) for i in chosen])
        parts[name] = Part(images=images, labels=labels[chosen])
    return parts


def _split(labels: NDArray[np.int64], seed: int) -> dict[str, NDArray[np.int64]]:
    """Split the digits at random; each part has the classes in nearly equal shares."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    # Position within its class, as a fraction: sorting by it deals every class evenly over the order.
    rank = np.empty(len(labels))
    for label in range(10):
        members = shuffled[labels[shuffled] == label]
        rank[members] = (np.arange(len(members)) + rng.random()) / len(members)
    order = np.argsort(rank, kind="stable")
    first, second = CALIBRATION_SAMPLES, CALIBRATION_SAMPLES + EVALUATION_SAMPLES
    return {"calib": order[:first], "eval": order[first:second], "train": order[second:]}


def _deal_tiles(photos: list[NDArray[np.uint8]]) -> dict[str, list[NDArray[np.float32]]]:
    """Cut the photographs into tiles [53, 53, 3] in 0 to 1 and deal them to the parts in turn."""
    tiles: dict[str, list[NDArray[np.float32]]] = {"train": [], "calib": [], "eval": []}
    count = 0
    for photo in photos:
        for top in range(0, photo.shape[0] - _TILE + 1, _TILE):
            for left in range(0, photo.shape[1] - _TILE + 1, _TILE):
                part = _PARTS_OF_TILES[count % len(_PARTS_OF_TILES)]
                tile = photo[top : top + _TILE, left : left + _TILE]
                tiles[part].append(tile.astype(np.float32) / 255.0)
                count += 1
    return tiles


def _render(
    digit: NDArray[np.float32], tiles: list[NDArray[np.float32]], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Paint one digit [8, 8] over a patch of one of the tiles; returns [3, 24, 24]."""
    patch = _patch(tiles[rng.integers(len(tiles))], rng)
    ink = _ink(patch, rng)
    cover = _warp(digit, rng) * rng.uniform(0.75, 1.0)
    picture = patch * (1 - cover[..., None]) + ink * cover[..., None]
    picture += rng.normal(0.0, 0.02, picture.shape)
    step = 256 // _GREY_LEVELS
    pixels = np.clip(np.round(picture * 255 / step) * step, 0, 254)
    return np.ascontiguousarray((pixels.transpose(2, 0, 1) - 128) / 64, dtype=np.float32)


def _patch(tile: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Cut a patch out of a tile, perhaps mirrored, with another brightness and contrast."""
    top, left = rng.integers(0, _TILE - SIZE + 1, size=2)
    patch = tile[top : top + SIZE, left : left + SIZE]
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    return np.clip((patch - 0.5) * rng.uniform(0.6, 1.0) + 0.5 + rng.uniform(-0.15, 0.15), 0, 1)


def _ink(patch: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a colour that stands out from the mean colour of the patch by at least a third."""
    mean = patch.mean(axis=(0, 1))
    while True:
        ink = rng.random(3)
        if np.linalg.norm(ink - mean) >= 1 / 3:
            return ink


def _warp(digit: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Enlarge a digit [8, 8] to [24, 24] with a random turn, shear, scale and shift; values 0 to 1."""
    angle, shear = np.deg2rad(rng.uniform(-20, 20)), rng.uniform(-0.2, 0.2)
    zoom = rng.uniform(1.7, 2.8, size=1) * rng.uniform(0.85, 1.15, size=2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # affine_transform maps output to input coordinates: the inverse of what is done to the digit.
    to_input = np.linalg.inv(turn @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag(zoom))
    centre = (SIZE - 1) / 2 + rng.uniform(-3, 3, size=2)
    offset = np.array([3.5, 3.5]) - to_input @ centre
    warped = affine_transform(digit, to_input, offset=offset, output_shape=(SIZE, SIZE), order=1)
    return np.clip(warped, 0, 1)
