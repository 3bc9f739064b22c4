import types

import pytest

from cpnas_tf.runs import images


def split(**origin):
    """Images of two classes, as far as a record is made of them."""
    return types.SimpleNamespace(class_names=("cat", "dog"), image_shape=(8, 8, 3), origin=origin)


RECORD = {
    "classes": ["cat", "dog"],
    "shape": [8, 8, 3],
    "origin": {"train/cat": "8 images", "train/dog": "7 images", "test/cat": "2 images"},
}


def test_a_record_holds_classes_shape_and_origin_of_all_splits():
    train, test = split(train="8 images"), split(test="2 images")
    assert images.record(train, test) == {
        "classes": ["cat", "dog"],
        "shape": [8, 8, 3],
        "origin": {"train": "8 images", "test": "2 images"},
    }


@pytest.mark.parametrize("there", [RECORD, None, {}])
def test_the_same_images_or_none_recorded(there):
    assert images.difference(there, RECORD) is None
    assert images.difference(RECORD, there) is None


def test_what_only_one_of_them_read_does_not_count():
    test = {**RECORD, "origin": {"test/cat": "2 images"}}
    assert images.difference(RECORD, test) is None
    assert images.difference(test, RECORD) is None


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"classes": ["dog", "zebra"]}, "the class 'cat' there, 'zebra' here"),
        ({"classes": ["dog"]}, "the class 'cat' is missing here"),
        ({"classes": ["cat", "dog", "x", "y"]}, "the class 'x' and 1 more is missing there"),
        ({"classes": ["dog", "cat"]}, "the classes in another order"),
        ({"shape": [9, 8, 3]}, "images of 8x8x3 there, of 9x8x3 here"),
        (
            {"origin": {**RECORD["origin"], "train/dog": "9 images"}},
            "train/dog: 7 images there, 9 images here",
        ),
    ],
)
def test_the_first_difference_is_named(change, difference):
    assert images.difference(RECORD, {**RECORD, **change}) == difference
