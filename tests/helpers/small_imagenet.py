"""A small ImageNet in TFDS's own layout: TFDS's builder writes it, from archives made here."""

import io
import pathlib
import tarfile

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

SHARDS = 3


def write(folder, *, classes=6, images=5):
    """Prepares `imagenet2012` in a folder: all its 1,000 class names, but few images.

    An image has the colour of its class, noise, and a size of its own. One is grey.

    Args:
        folder: the data directory to write into.
        classes: how many classes have images: those of ImageNet's first validation images.
        images: training images per class. The validation set has one image per class.

    Returns:
        `folder`, as a string: what `data_dir` is to be.
    """
    labels = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text()
    synsets = labels.split()[:classes]
    random = np.random.default_rng(0)
    colours = random.uniform(40, 215, size=(classes, 3))
    archives = {
        f"{synset}.tar": _tar(
            {f"{synset}_{number}.JPEG": _jpeg(random, colour) for number in range(images)}
        )
        for synset, colour in zip(synsets, colours, strict=True)
    }
    validation = {
        f"ILSVRC2012_val_{number:08}.JPEG": _jpeg(random, colour, grey=number == 1)
        for number, colour in enumerate(colours, start=1)
    }
    manual = pathlib.Path(folder, "downloads", "manual")
    manual.mkdir(parents=True)
    manual.joinpath("ILSVRC2012_img_train.tar").write_bytes(_tar(archives))
    manual.joinpath("ILSVRC2012_img_val.tar").write_bytes(_tar(validation))
    settings = tfds.download.DownloadConfig(num_shards=SHARDS, try_download_gcs=False)
    tfds.builder("imagenet2012", data_dir=folder).download_and_prepare(download_config=settings)
    return str(folder)


def _jpeg(random, colour, *, grey=False):
    height, width = random.integers(40, 80, size=2)
    pixels = random.normal(colour, 25, size=(height, width, 3)).clip(0, 255).astype(np.uint8)
    pixels = pixels[..., :1] if grey else pixels
    # With colours in full resolution, a part decoded is the part of the whole image, exactly.
    return tf.io.encode_jpeg(pixels, quality=95, chroma_downsampling=False).numpy()


def _tar(files):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()
