import pytest

from quantcli.data.options import ImageOptions, parse_image_options, parse_options
from quantcli.errors import UsageError


def test_fractions_are_divided_in_float64():
    assert parse_image_options({"scale": "1/255"}).scale == 1 / 255


def test_one_size_is_a_side_and_two_are_height_and_width():
    assert parse_image_options({"resize": "256"}).resize == 256
    assert parse_image_options({"crop": "192x256"}).crop == (192, 256)


def test_lists_of_numbers_are_split_at_commas():
    assert parse_image_options({"mean": "0.5,1/2,0"}).mean == (0.5, 0.5, 0.0)


def test_a_preset_fills_in_only_what_is_not_said():
    options = parse_image_options({"preprocess": "imagenet", "crop": "192"}).resolved()
    assert (options.resize, options.crop, options.scale) == (256, 192, 1 / 255)


def test_options_of_a_specification_go_before_those_of_the_command():
    own, base = ImageOptions(scale=2.0), ImageOptions(scale=3.0, layout="nhwc")
    assert own.over(base) == ImageOptions(scale=2.0, layout="nhwc")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scale", "a"),
        ("scale", "1/0"),
        ("scale", "nan"),
        ("scale", "0"),
        ("std", "0.2,0,0.2"),
        ("mean", "1,,2"),
        ("resize", "0"),
        ("resize", "1x2x3"),
        ("crop", "-1"),
        ("layout", "nwhc"),
        ("channels", "rgba"),
        ("preprocess", "imagnet"),
        ("rows", "samples"),
        ("seed", "-1"),
        ("low", "x"),
    ],
)
def test_wrong_values_are_usage_errors_that_name_the_option(name, text):
    with pytest.raises(UsageError, match=f"'{name}'") as caught:
        parse_options({name: text}, "data 'a'")
    assert caught.value.code == "D102"


def test_an_unknown_image_option_is_a_usage_error():
    with pytest.raises(UsageError, match="did you mean 'resize'"):
        parse_image_options({"resise": "1"})
