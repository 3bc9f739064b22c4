"""The curves of a training, and the images that are shown as examples."""

import numpy as np
import pytest
from pictures import drawn, smallest_font

from cpnas_tf.plots import photos, training
from cpnas_tf.plots.training import plot_examples, plot_history

ROWS = [
    {"epoch": 1, "loss": 2.0, "accuracy": 0.25, "val_loss": 3.0, "val_accuracy": 0.125},
    {"epoch": 2, "loss": 1.0, "accuracy": 0.75, "val_loss": 2.5, "val_accuracy": 0.5},
]
NAMES = ("cat", "dog", "cow")


def texts(figure):
    return [text.get_text() for text in figure.texts]


class TestHistory:
    @pytest.mark.parametrize("column", ["loss", "cross_entropy"])
    def test_its_lines_are_the_history_s(self, column):
        rows = [
            {**row, column: row["loss"], "loss": row["loss"] + (column != "loss")} for row in ROWS
        ]
        figure = drawn(plot_history(rows))
        accuracy, entropy = figure.axes
        lines = [line.get_ydata() for axes in (accuracy, entropy) for line in axes.lines]
        np.testing.assert_allclose(lines, [[25, 75], [12.5, 50], [2, 1], [3, 2.5]])
        assert all(list(line.get_xdata()) == [1, 2] for line in entropy.lines)
        assert smallest_font(figure) >= 8

    def test_one_epoch(self):
        ticks = drawn(plot_history(ROWS[:1])).axes[1].get_xticks()
        assert all(tick == round(tick) for tick in ticks)

    def test_none(self):
        with pytest.raises(ValueError, match="no epoch yet"):
            plot_history([])


class TestExamples:
    def figure(self, logits, labels):
        images = np.zeros([len(labels), 4, 4, 1], np.uint8)
        images += np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
        return plot_examples(images, np.array(logits, np.float32), np.array(labels), NAMES)

    def test_the_surest_and_the_worst(self):
        # Shares of the true class: 0.88, 0.11, 0.5 and 0.99.
        logits = [[2, 0, -9], [2, 0, -9], [0, 0, -9], [-9, 0, 5]]
        figure = drawn(self.figure(logits, [0, 1, 0, 2]))
        assert texts(figure) == [
            *("Surest and right", "cow 99%", "cat 88%", "cat 50%"),
            *("Largest loss", "cat 88%\nis dog", "cat 50%", "cat 88%", "cow 99%"),
        ]
        shown = [int(axes.images[0].get_array().flat[0]) for axes in figure.axes]
        assert shown == [3, 0, 2, 1, 2, 0, 3]

    def test_of_many_some_are_shown(self):
        figure = self.figure([[5, 0, 0]] * 40, [0] * 40)
        assert len(figure.axes) == training._RIGHT + training._WORST

    def test_none_is_right(self):
        assert "Surest and right" in texts(self.figure([[5, 0, 0]], [1]))


class TestPhotos:
    def test_photos_of_all_shapes_lie_apart_and_in_the_figure(self):
        shapes = [(8, 20, 3), (20, 8, 3), (9, 9, 1)] * 5
        pairs = [(np.zeros(shape, np.uint8), "a$b<c" * 9) for shape in shapes]
        figure = drawn(photos.plot_photos({"first": pairs, "": pairs[:2]}))
        boxes = [axes.get_position().extents for axes in figure.axes]
        assert len(boxes) == 17
        for index, first in enumerate(boxes):
            assert min(first) >= 0
            assert max(first) <= 1
            for second in boxes[:index]:
                assert not all(
                    first[i] < second[i + 2] and second[i] < first[i + 2] for i in (0, 1)
                )
        renderer = figure.canvas.get_renderer()
        widths = [text.get_window_extent(renderer).width / figure.dpi for text in figure.texts[1:]]
        assert max(widths) <= photos.WIDTH / photos.COLUMNS
        assert all(len(text) <= 20 for text in texts(figure)[1:])
