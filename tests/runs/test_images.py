import types

import cpnas_tf  # noqa: F401, isort: skip
import pytest
import tensorflow as tf

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


def images_of(*classes, shape=(8, 8, 3)):
    return types.SimpleNamespace(
        class_names=classes, classes=len(classes), image_shape=shape, origin={"train": str(classes)}
    )


CATS_AND_DOGS = images_of("cat", "dog")


@pytest.mark.parametrize(
    ("validation", "difference"),
    [
        (images_of("cat", "cow"), "the class 'dog' there, 'cow' here"),
        (images_of("dog", "cat"), "the classes in another order"),
        (images_of("cat", "dog", shape=(8, 8, 1)), "images of 8x8x3 there, of 8x8x1 here"),
    ],
)
def test_images_to_validate_on_are_like_those_to_train_on(validation, difference):
    images.check_alike(CATS_AND_DOGS, images_of("cat", "dog"))
    line = f"^validation must have the classes and the size of the .*: {difference}$"
    with pytest.raises(ValueError, match=line):
        images.check_alike(CATS_AND_DOGS, validation)


@pytest.mark.parametrize(
    "given", [images_of("cat", "dog", "cow"), images_of("cat", "dog", shape=(9, 8, 3))]
)
def test_images_fit_a_model(given):
    head = [tf.keras.layers.GlobalAveragePooling2D(), tf.keras.layers.Dense(2)]
    model = tf.keras.Sequential([tf.keras.Input([8, 8, 3]), *head], name="small")
    images.check_fits(model, CATS_AND_DOGS)
    line = "^the model 'small' takes images .8, 8, 3. and gives outputs .2., received: images .*$"
    with pytest.raises(ValueError, match=line):
        images.check_fits(model, given)
    of_any_size = tf.keras.Sequential([tf.keras.Input([None, None, 3]), *head])
    images.check_fits(of_any_size, images_of("cat", "dog", shape=(9, 8, 3)))


@pytest.mark.parametrize("given", [None, [1, 2]])
def test_what_are_no_images(given):
    line = f"^images must be a data.Images, received: {type(given).__name__}$"
    with pytest.raises(ValueError, match=line):
        images.check_alike(CATS_AND_DOGS, given)
