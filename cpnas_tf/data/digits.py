"""The UCI handwritten digits that scikit-learn carries, as a TensorFlow Datasets builder.

Importing this module registers it: `tfds.load("digits")`. Preparing it needs no network.
"""

import numpy as np
import tensorflow_datasets as tfds

HIGHEST_VALUE = 16  # the UCI pixels are counts, 0..16


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 real images of handwritten digits, 8x8x1, in a fixed stratified split of 1,437 / 360.

    Pixels are rescaled to uint8, `round(255 v / 16)`. Each class has 20% of its images in the test
    split, rounded down or up.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    TEST_IMAGES = 360

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Optical recognition of handwritten digits: the test set of the UCI data set, "
                "1,797 images by 13 writers, as scikit-learn bundles it."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation=(
                "@misc{alpaydin1998optical, "
                "title={Optical Recognition of Handwritten Digits}, "
                "author={Alpaydin, E. and Kaynak, C.}, year={1998}, "
                "howpublished={UCI Machine Learning Repository}, doi={10.24432/C50P49}}"
            ),
            license="CC BY 4.0",
        )

    def _split_generators(self, dl_manager):
        from sklearn.datasets import load_digits  # slow to import, and needed only once

        digits = load_digits()
        images = np.rint(digits.images[..., np.newaxis] * 255 / HIGHEST_VALUE).astype(np.uint8)
        in_test = _stratified_sample(digits.target, size=self.TEST_IMAGES)
        return {
            split: self._generate_examples(images, digits.target, np.flatnonzero(chosen))
            for split, chosen in (("train", ~in_test), ("test", in_test))
        }

    def _generate_examples(self, images, labels, indices):
        for index in indices.tolist():
            yield index, {"image": images[index], "label": int(labels[index])}


def _stratified_sample(labels, *, size):
    """Draws `size` images so that every class gives its share, rounded down or up.

    The images, shuffled and then sorted by class, are taken at even distances. NumPy keeps the
    stream of `RandomState` the same for ever, so the split is the same on every machine.

    Returns:
        bool [n], true for the images drawn.
    """
    order = np.random.RandomState(0).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    chosen = np.zeros(len(labels), bool)
    chosen[by_class[np.arange(size) * len(labels) // size]] = True
    return chosen
