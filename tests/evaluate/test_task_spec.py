import pytest

from quantcli.errors import UsageError
from quantcli.evaluate.task_spec import TASKS, parse_task


def test_options_are_read_and_the_others_have_their_usual_values():
    found = parse_task("detection?truth=a/b.npy&boxes=CXCYWH&nms=0.65&max=300&scale=416")
    assert (found.name, found.truth.as_posix()) == ("detection", "a/b.npy")
    assert found.values["boxes"] == "cxcywh"
    assert (found.number_of("nms"), found.number_of("max"), found.number_of("scale")) == (0.65, 300, 416)
    assert (found.text_of("columns"), found.text_of("output"), found.number_of("score")) == (
        "score,class",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("segmentatoin?truth=a.npy", "no task that is built in", "did you mean 'segmentation'"),
        ("zzz", "no task that is built in", "segmentation, detection"),
        ("segmentation", "does not say 'truth'", "class of every pixel"),
        ("detection?truth=a.npy", "does not say 'boxes'", "xyxy, yxyx, xywh, cxcywh"),
        ("segmentation?truth=a.npy&ignroe=255", "unknown option 'ignroe'", "did you mean 'ignore'"),
        ("segmentation?truth=a.npy&ignore=", "'ignore' no value", "ignore=VALUE"),
        ("segmentation?truth=a.npy&ignore", "'ignore' no value", "ignore=VALUE"),
        ("segmentation?truth=a.npy&truth=b.npy", "'truth' twice", ""),
        ("segmentation?truth=a.npy&ignore=x", "takes a whole number from 0 on", ""),
        ("segmentation?truth=a.npy&ignore=-1", "takes a whole number from 0 on", ""),
        ("detection?truth=a.npy&boxes=xxyy", "'boxes' takes xyxy", ""),
        ("detection?truth=a.npy&boxes=xyxy&nms=2", "'nms' takes 0 to 1", ""),
        ("detection?truth=a.npy&boxes=xyxy&score=nan", "'score' takes a number", ""),
        ("detection?truth=a.npy&boxes=xyxy&max=0", "from 1 on", ""),
        ("detection?truth=a.npy&boxes=xyxy&output=o&boxes-output=b", "both 'output' and 'boxes-output'", "rows"),
        ("detection?truth=a.npy&boxes=xyxy&boxes-output=b", "no 'scores-output'", ""),
        ("detection?truth=a.npy&boxes=xyxy&scores-output=b", "no 'boxes-output'", ""),
    ],
)
def test_what_does_not_parse_says_why(text, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        parse_task(text)
    assert caught.value.code == "G107"
    assert hint in (caught.value.hint or "")


def test_every_option_has_a_sentence_and_a_name_of_its_own():
    for options in TASKS.values():
        assert len({option.name for option in options}) == len(options)
        assert all(option.sentence for option in options)
