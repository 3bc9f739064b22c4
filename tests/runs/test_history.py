import pytest

from cpnas_tf.runs import history

ROWS = [
    {
        "epoch": epoch,
        "loss": 2.5 / epoch,
        "accuracy": 0.25 * epoch,
        "val_accuracy": accuracy,
        "images_per_second": 1234.5,
        "seconds": 30.0 * epoch,
    }
    for epoch, accuracy in ((1, 0.1), (2, 0.7), (3, 0.7))
]


def test_what_is_read_is_what_was_written(tmp_path):
    path = tmp_path / "history.csv"
    history.write(path, ROWS)
    assert history.read(path) == ROWS
    assert path.read_text().splitlines()[0] == ",".join(ROWS[0])
    history.write(path, ROWS[:1])
    assert history.read(path) == ROWS[:1]


def test_the_first_of_the_best_is_the_best():
    assert history.best(ROWS)["epoch"] == 2


@pytest.mark.parametrize(("epochs", "left"), [(3, "0:00:00"), (103, "2:30:00")])
def test_a_line_tells_of_the_last_epoch_and_what_is_left(epochs, left):
    line = history.line(ROWS, name="child", epochs=epochs)
    assert (
        line.split()
        == (
            f"child [{3:{len(str(epochs))}d}/{epochs}] loss 0.8333 accuracy 75.00% "
            f"validation 70.00% 1234 images/s ETA {left}"
        ).split()
    )


def test_a_line_tells_the_time_left_that_it_is_given():
    assert history.line(ROWS, name="child", epochs=103, left=3661.4).endswith("ETA 1:01:01")
