"""Images; the oracle is the plain expression of numpy and Pillow, and torchvision's documented sizes."""

import builtins

import numpy as np
import pytest

from quantcli.data.base import InputSpec
from quantcli.data.dataset import open_dataset
from quantcli.data.images import resized
from quantcli.data.options import ImageOptions
from quantcli.errors import DataError

Image = pytest.importorskip("PIL.Image")

NCHW = InputSpec(name="x", dtype="float32", shape=("N", 3, 8, 6))
NHWC = InputSpec(name="x", dtype="float32", shape=(1, 8, 6, 3))
FREE = InputSpec(name="x", dtype="float32", shape=("N", 3, "H", "W"))


def pixels(seed, height=8, width=6):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def feeds(dataset):
    return [sample["x"] for sample in dataset]


def same(found, wanted):
    assert found.dtype == wanted.dtype
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, wanted)


def test_a_folder_is_read_in_natural_order_with_everything_below_it(tmp_path):
    for name in ("b/1.png", "a/10.png", "a/9.png", "a/.hidden.png"):
        write(tmp_path / name, pixels(0))
    (tmp_path / "a" / "notes.md").touch()
    dataset = open_dataset([f"{tmp_path}?scale=1"], [NCHW])
    assert [file.relative_to(tmp_path).as_posix() for file in dataset.sources[0].files] == [
        "a/9.png",
        "a/10.png",
        "b/1.png",
    ]
    assert len(dataset) == 3


@pytest.mark.parametrize(("spec", "axes"), [(NCHW, (2, 0, 1)), (NHWC, (0, 1, 2))])
def test_pixels_become_inputs_by_the_formula_in_the_models_layout(tmp_path, spec, axes):
    image = pixels(1)
    write(tmp_path / "0.png", image)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    wanted = (image.astype(np.float32) * np.float32(1 / 255) - mean) / std
    text = f"{tmp_path}?scale=1/255&mean=0.485,0.456,0.406&std=0.229,0.224,0.225"
    same(feeds(open_dataset([text], [spec]))[0], np.ascontiguousarray(wanted.transpose(axes)[None]))


def test_bgr_turns_the_channels_before_the_mean_is_subtracted(tmp_path):
    image = pixels(2)
    write(tmp_path / "0.png", image)
    wanted = (image[..., ::-1].astype(np.float32) - np.float32([1, 2, 3])).transpose(2, 0, 1)[None]
    same(feeds(open_dataset([f"{tmp_path}?channels=bgr&mean=1,2,3"], [NCHW]))[0], np.ascontiguousarray(wanted))


def test_one_channel_means_gray(tmp_path):
    image = pixels(3)
    write(tmp_path / "0.png", image)
    spec = InputSpec(name="x", dtype="float32", shape=("N", 1, 8, 6))
    wanted = np.asarray(Image.fromarray(image).convert("L")).astype(np.float32)[None, None]
    same(feeds(open_dataset([f"{tmp_path}?scale=1"], [spec]))[0], wanted)


def test_an_input_of_pixels_takes_them_as_they_are(tmp_path):
    image = pixels(4)
    write(tmp_path / "0.png", image)
    spec = InputSpec(name="x", dtype="uint8", shape=("N", 8, 6, 3))
    same(feeds(open_dataset([str(tmp_path)], [spec]))[0], image[None])


def test_resizing_and_cropping_are_pillows_and_centred(tmp_path):
    image = pixels(5, 20, 33)
    write(tmp_path / "0.png", image)
    small = np.asarray(Image.fromarray(image).resize((16, 10), Image.Resampling.BILINEAR))
    wanted = small[1:9, 5:11].astype(np.float32).transpose(2, 0, 1)[None]
    found = feeds(open_dataset([f"{tmp_path}?scale=1&resize=10&crop=8x6"], [NCHW]))[0]
    same(found, np.ascontiguousarray(wanted))


@pytest.mark.parametrize(
    ("size", "resize", "wanted"),
    [
        ((500, 375), 256, (341, 256)),  # torchvision: int(256 * 500 / 375) = 341
        ((375, 500), 256, (256, 341)),
        ((64, 64), 32, (32, 32)),
        ((640, 480), (96, 128), (128, 96)),
        ((640, 480), None, (640, 480)),
    ],
)
def test_sizes_after_resizing_are_those_of_torchvision(size, resize, wanted):
    assert resized(*size, resize) == wanted


def test_the_imagenet_preset_is_resize_crop_scale_and_normalise(tmp_path):
    image = pixels(6, 300, 280)
    write(tmp_path / "0.png", image)
    spec = InputSpec(name="x", dtype="float32", shape=("N", 3, 224, 224))
    resized_image = np.asarray(Image.fromarray(image).resize((256, 274), Image.Resampling.BILINEAR))
    crop = resized_image[25:249, 16:240].astype(np.float32)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    wanted = ((crop * np.float32(1 / 255) - mean) / std).transpose(2, 0, 1)[None]
    same(feeds(open_dataset([f"{tmp_path}?preprocess=imagenet"], [spec]))[0], np.ascontiguousarray(wanted))


def test_sizes_may_vary_where_the_model_allows_it(tmp_path):
    write(tmp_path / "0.png", pixels(0, 8, 6))
    write(tmp_path / "1.png", pixels(0, 5, 9))
    shapes = [feed.shape for feed in feeds(open_dataset([f"{tmp_path}?scale=1"], [FREE]))]
    assert shapes == [(1, 3, 8, 6), (1, 3, 5, 9)]


def test_a_fixed_batch_takes_several_images(tmp_path):
    for index in range(5):
        write(tmp_path / f"{index}.png", pixels(index))
    spec = InputSpec(name="x", dtype="float32", shape=(2, 8, 6, 3))
    dataset = open_dataset([f"{tmp_path}?scale=1"], [spec])
    assert len(dataset) == 2
    same(feeds(dataset)[1], np.stack([pixels(2), pixels(3)]).astype(np.float32))
    assert "the last 1 images are dropped" in dataset.notes[0]


def test_a_list_names_images_relative_to_itself(tmp_path):
    write(tmp_path / "pics" / "b c.png", pixels(0))
    write(tmp_path / "pics" / "a.png", pixels(1))
    (tmp_path / "list.txt").write_text("pics/b c.png\n\npics/a.png\n")
    dataset = open_dataset([f"{tmp_path / 'list.txt'}?scale=1"], [NHWC])
    same(feeds(dataset)[0], pixels(0)[None].astype(np.float32))
    assert len(dataset) == 2


def test_a_single_image_is_one_sample(tmp_path):
    write(tmp_path / "cat.png", pixels(0))
    assert len(open_dataset([f"{tmp_path / 'cat.png'}?scale=1"], [NCHW])) == 1


def test_options_of_the_command_apply_and_the_specification_goes_first(tmp_path):
    write(tmp_path / "0.png", pixels(0))
    common = ImageOptions(scale=1 / 255, channels="bgr")
    found = feeds(open_dataset([f"{tmp_path}?scale=1"], [NHWC], image=common))[0]
    same(found, np.ascontiguousarray(pixels(0)[None, ..., ::-1]).astype(np.float32))


def test_shuffled_images_are_a_permutation(tmp_path):
    for index in range(6):
        write(tmp_path / f"{index}.png", np.full((8, 6, 3), index, np.uint8))
    found = [int(f.flat[0]) for f in feeds(open_dataset([f"{tmp_path}?scale=1"], [NHWC], shuffle=True, seed=3))]
    assert found == np.random.default_rng(3).permutation(6).tolist()


def test_how_pixels_become_floats_must_be_said(tmp_path):
    write(tmp_path / "0.png", pixels(0))
    with pytest.raises(DataError, match="how pixels become floats is not said") as caught:
        open_dataset([str(tmp_path)], [NCHW])
    assert "?scale=1/255" in caught.value.hint


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "told"),
    [
        (("N", 3), "float32", "scale=1", "images are fed as"),
        (("N", "C", "H", "W"), "float32", "scale=1", "does not tell where the channels are"),
        (("N", 3, 8, 6), "float32", "scale=1&channels=gray", "gray images have 1 channels, not 3"),
        (("N", 4, 8, 6), "float32", "scale=1&layout=nchw", "rgb images have 3 channels, not 4"),
        (("N", 3, 8, 6), "float32", "mean=1,2", "mean has 2 values, for 3 channels"),
        (("N", 3, 8, 6), "int64", "scale=1", "pixels with scale, mean and std are not int64"),
        (("N", 3, 8, 6), "uint8", "scale=1/255", "pixels with scale, mean and std are not uint8"),
    ],
)
def test_inputs_that_images_do_not_fit_are_told(tmp_path, shape, dtype, options, told):
    write(tmp_path / "0.png", pixels(0))
    with pytest.raises(DataError, match=told) as caught:
        open_dataset([f"{tmp_path}?{options}"], [InputSpec(name="x", dtype=dtype, shape=shape)])
    assert caught.value.code == "D107"


def test_images_of_the_wrong_size_are_counted_and_one_is_named(tmp_path):
    for index in range(3):
        write(tmp_path / f"{index}.png", pixels(0, 9, 6))
    write(tmp_path / "3.png", pixels(0))
    with pytest.raises(DataError, match=r"image '0.png' \(and 2 more\) .* gives 9x6 pixels") as caught:
        open_dataset([f"{tmp_path}?scale=1"], [NCHW])
    assert "?resize=8x6" in caught.value.hint


def test_images_that_are_too_small_to_crop_are_told(tmp_path):
    write(tmp_path / "0.png", pixels(0))
    with pytest.raises(DataError, match="too few for crop=10x10"):
        open_dataset([f"{tmp_path}?scale=1&crop=10"], [FREE])


def test_files_that_are_no_images_are_told(tmp_path):
    (tmp_path / "0.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"image '0.png' of .* cannot be read: it is of no kind") as caught:
        open_dataset([f"{tmp_path}?scale=1"], [NCHW])
    assert caught.value.code == "D111"


def test_a_truncated_image_is_told_when_it_is_read(tmp_path):
    write(tmp_path / "0.png", pixels(0))
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:-60])
    dataset = open_dataset([f"{tmp_path}?scale=1"], [NCHW])
    with pytest.raises(DataError, match=r"image '0.png' cannot be read"):
        list(dataset)


def test_pixels_of_16_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((8, 6), np.uint16)).save(tmp_path / "0.png")
    with pytest.raises(DataError, match="not 8 bits wide"):
        open_dataset([f"{tmp_path}?scale=1"], [NCHW])


def test_a_missing_image_of_a_list_is_told(tmp_path):
    (tmp_path / "list.txt").write_text("none.png\n")
    with pytest.raises(DataError, match=r"image 'none.png' of 'list.txt' cannot be read: No such file"):
        open_dataset([f"{tmp_path / 'list.txt'}?scale=1"], [NCHW])
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(DataError, match="names no images"):
        open_dataset([f"{tmp_path / 'list.txt'}?scale=1"], [NCHW])


def test_arrays_and_images_in_one_directory_are_told(tmp_path):
    write(tmp_path / "0.png", pixels(0))
    np.save(tmp_path / "labels.npy", np.arange(3))
    with pytest.raises(DataError, match="both arrays and images"):
        open_dataset([f"{tmp_path}?scale=1"], [NCHW])


def test_without_pillow_the_error_names_the_extra(tmp_path, monkeypatch):
    write(tmp_path / "0.png", pixels(0))
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "PIL":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match="Pillow, which is not installed") as caught:
        open_dataset([f"{tmp_path}?scale=1"], [NCHW])
    assert caught.value.hint == "pip install 'quantcli[images]'"
