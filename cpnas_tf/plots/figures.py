"""What all figures share: sizes, colours, how they are saved; and the confusion matrix."""

import io
import itertools
import os

from cpnas_tf.files import write_atomically

INK, FAINT_INK = "#222222", "#6b6b6b"
CHILD_COLOUR, PARENT_COLOUR = "#e07b00", "#005b96"
WIDTH = 9.0  # inches
NARROW_WIDTH = 4.2  # inches: on a phone, text of 8 points is still of 9 pixels
PIXELS_PER_INCH = 200
SAVE_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "cpnas_tf"}
_NAMED_CLASSES = 20


def new_figure(height, *, width=WIDTH):
    """An empty `matplotlib.figure.Figure` of a height and a width in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def plot_confusion_matrix(matrix, class_names):
    """Draws how many images of each class a classifier takes for each class.

    The colours are shares of a class's images; up to 20 classes are named, and have the counts.

    Args:
        matrix: counts, a row for each class, in its columns what the images were taken for.
        class_names: the classes' names.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = new_figure(7.2)
    axes = figure.add_axes((0.19, 0.19, 0.69, 0.72))
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if len(class_names) <= _NAMED_CLASSES:
        numbers = range(len(class_names))
        axes.set_xticks(numbers, class_names, fontsize=8, rotation=45, ha="right")
        axes.set_yticks(numbers, class_names, fontsize=8)
        for row, column in itertools.product(numbers, numbers):
            ink = "white" if shares[row][column] > 0.715 else "black"
            style = {"fontsize": 8, "color": ink, "ha": "center", "va": "center"}
            axes.text(column, row, str(matrix[row][column]), **style)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.set_ylabel("class", fontsize=9)
    bar = figure.colorbar(picture, cax=figure.add_axes((0.9, 0.19, 0.02, 0.72)))
    bar.ax.tick_params(labelsize=8)
    axes.tick_params(labelsize=8)
    right, total = (sum(row[i] for i, row in enumerate(matrix)), sum(map(sum, matrix)))
    title = f"Confusion matrix: {right:,} of {total:,} images right"
    figure.text(0.015, 0.96, title, fontsize=12, weight="bold", color=INK, va="center")
    return figure


def save_all(output, figures):
    """Writes figures, by name, into a folder that is made if missing; see `save`.

    Returns:
        The list of paths written.

    Raises:
        ValueError: if the folder cannot be written.
    """
    try:
        os.makedirs(output, exist_ok=True)
        return [
            path
            for name, figure in figures.items()
            for path in save(figure, os.path.join(output, name))
        ]
    except OSError as error:
        raise ValueError(f"cannot write the pictures to {output}: {error.strerror}") from None


def save(figure, stem):
    """Writes a figure to `stem`.png and `stem`.svg, atomically; equal figures give equal bytes.

    Text in the SVG stays text, so that it can be searched and selected.

    Returns:
        The two paths.

    Raises:
        OSError: if the folder cannot be written.
    """
    paths = []
    for extension in ("png", "svg"):
        paths.append(f"{stem}.{extension}")
        write_atomically(paths[-1], render(figure, extension))
    return paths


def render(figure, extension):
    """A figure as the bytes of a "png" or "svg" file."""
    import matplotlib

    image = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None}}[extension]
    with matplotlib.rc_context(SAVE_STYLE):
        figure.savefig(image, format=extension, dpi=PIXELS_PER_INCH, metadata=metadata)
    return image.getvalue()
