import json
import shutil

import cpnas_tf  # noqa: F401, isort: skip
import numpy as np
import pytest
import small_folder
from one_line import assert_one_line
from small_training import (
    CLASS_NAMES,
    GENOTYPE,
    IMAGES,
    NETWORK,
    VALIDATION,
    assert_same,
    child_model,
    train,
    values,
)

from cpnas_tf.data import datasets
from cpnas_tf.runs import checkpoints, images, trained

METRICS = {"val_accuracy": 0.5, "seconds": 9.0}


def write_pets(folder, *names):
    """A folder of images in one colour, two per class and split."""
    for index, name in enumerate(names):
        for number in (1, 2):
            pixels = np.full((8, 8, 3), 40 * index + number, np.uint8)
            for split in ("train", "test"):
                small_folder.write(folder / split / name / f"{number}.png", pixels)


def write_run(folder, **record):
    """A finished training as far as its record and metrics go."""
    folder.mkdir(exist_ok=True)
    config = {"data": {"name": "folder:pets", "split": "train"}, "network": NETWORK}
    genotype = {"normal": GENOTYPE.normal, "reduce": GENOTYPE.reduce}
    run = {"config": config, "precision": "child", "genotype": genotype, "model": None}
    run |= {"data_dir": None, **record}
    (folder / "config.json").write_text(json.dumps(run))
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return folder


@pytest.fixture
def there(tmp_path):
    """Where a training ran on its `pets`."""
    write_pets(tmp_path / "there" / "pets", "cat", "dog")
    return tmp_path / "there"


@pytest.fixture
def run(tmp_path, there):
    """The training's workdir."""
    pets = [datasets.load("folder:pets", split, data_dir=there) for split in ("train", "test")]
    return write_run(tmp_path / "run", cwd=str(there), images=images.record(*pets))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Another folder, where the commands run now."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def refusal(run, **settings):
    with pytest.raises(ValueError, match=str(run)) as error:
        trained.TrainedRun(run, **settings).test_images()
    assert_one_line(error)
    return str(error.value)


class TestRecord:
    def test_what_the_files_say(self, run):
        found = trained.TrainedRun(run)
        assert found.config["network"] == NETWORK
        assert (found.precision, found.model, found.genotype) == ("child", None, GENOTYPE)
        assert found.metrics == METRICS
        assert found.class_names == ("cat", "dog")
        assert found.evaluation is None
        (run / "evaluation.json").write_text('{"accuracy": 1.0}')
        assert trained.TrainedRun(run).evaluation == {"accuracy": 1.0}

    @pytest.mark.parametrize("record", ["[]", "{}", '"config"'])
    def test_a_record_of_something_else(self, run, record):
        (run / "config.json").write_text(record)
        with pytest.raises(ValueError, match="config.json is not that of a training") as error:
            trained.TrainedRun(run)
        assert_one_line(error)

    def test_an_unfinished_training(self, run):
        (run / "metrics.json").unlink()
        with pytest.raises(ValueError, match="holds no finished training"):
            trained.TrainedRun(run)

    def test_what_the_library_trained_says_how_its_weights_are_loaded(self, tmp_path):
        model = child_model()
        train(model, tmp_path, epochs=1)
        with pytest.raises(ValueError, match="as cpnas_tf.train leaves it") as error:
            trained.TrainedRun(tmp_path)
        assert_one_line(error, "cpnas_tf.runs.checkpoints.load_weights(model, directory)")
        again = child_model()
        checkpoints.load_weights(again, tmp_path)
        assert_same(values(again.variables), values(model.variables))

    def test_a_reference_network_that_is_unknown(self, run):
        write_run(run, model="vgg16", genotype=None, images=images.record(VALIDATION))
        with pytest.raises(ValueError, match="unknown reference network 'vgg16', expected one of"):
            trained.TrainedRun(run).network()


class TestTestImages:
    def test_a_relative_folder_is_found_where_the_training_ran(self, run, here):
        test = trained.TrainedRun(run).test_images()
        assert test.class_names == ("cat", "dog")
        assert test.images[:, 0, 0, 0].tolist() == [1, 2, 41, 42]

    def test_or_here_if_it_was_moved(self, run, there, here):
        (there / "pets").rename(here / "pets")
        assert len(trained.TrainedRun(run).test_images()) == 4

    def test_or_where_the_caller_says(self, run, there, here, tmp_path):
        there.rename(tmp_path / "moved")
        write_pets(here / "pets", "ant", "bee")
        assert len(trained.TrainedRun(run, data_dir=tmp_path / "moved").test_images()) == 4

    def test_the_same_path_with_other_images(self, run, here):
        write_pets(here / "pets", "ant", "bee")
        line = refusal(run)
        assert "on other images (the class 'cat' and 1 more there, 'ant' and 1 more here)" in line

    def test_a_class_that_was_renamed(self, run, there):
        for split in ("train", "test"):
            (there / "pets" / split / "cat").rename(there / "pets" / split / "zebra")
        assert "the class 'cat' there, 'zebra' here" in refusal(run, data_dir=there)

    def test_an_image_that_was_added(self, run, there):
        path = there / "pets" / "test" / "dog"
        shutil.copyfile(path / "1.png", path / "3.png")
        line = refusal(run, data_dir=there)
        assert "(test/dog: 2 images (" in line
        assert " there, 3 images (" in line

    def test_other_training_images_are_no_matter(self, run, there):
        (there / "pets" / "train" / "dog" / "1.png").unlink()
        assert len(trained.TrainedRun(run, data_dir=there).test_images()) == 4

    def test_a_record_of_0_1_0_names_no_images(self, run, there):
        write_run(run)
        write_pets(there / "pets", "cow")
        found = trained.TrainedRun(run, data_dir=there)
        assert found.class_names == ("cat", "cow", "dog")


class TestNetwork:
    def test_it_needs_no_images_where_they_are_recorded(self, tmp_path, monkeypatch):
        model = child_model()
        train(model, tmp_path, epochs=1)
        write_run(tmp_path, images=images.record(IMAGES, VALIDATION))

        def load(*args, **settings):
            raise AssertionError("reads images")

        monkeypatch.setattr(datasets, "load", load)
        found = trained.TrainedRun(tmp_path)
        assert_same(values(found.network().variables), values(model.variables))
        assert found.class_names == CLASS_NAMES


class TestCheckClasses:
    def test_the_same(self, run):
        trained.check_classes(run, ("cat", "dog"))

    def test_others(self, run):
        with pytest.raises(ValueError, match="run was trained on other classes: the class 'dog' "):
            trained.check_classes(run, ("cat", "wolf"))

    def test_nothing_recorded(self, run, tmp_path):
        trained.check_classes(tmp_path, ("cat", "wolf"))
        write_run(run)
        trained.check_classes(run, ("cat", "wolf"))
