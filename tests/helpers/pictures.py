"""What is asked of every picture: text of a readable size and contrast, apart from each other."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

READABLE_CONTRAST = 4.5  # WCAG 2, level AA


def drawn(figure):
    """Draws a figure, after which its texts have an extent."""
    FigureCanvasAgg(figure).draw()
    return figure


def meet(first, second):
    """Whether two boxes (left, bottom, right, top) have a point in common."""
    return all(first[i] < second[i + 2] and second[i] < first[i + 2] for i in (0, 1))


def smallest_font(figure):
    """The size in points of the smallest text in a drawn figure, subscripts included."""
    texts = figure.findobj(lambda artist: hasattr(artist, "get_fontsize"))
    return min(
        text.get_fontsize() * (0.7 if "_" in text.get_text() and "$" in text.get_text() else 1)
        for text in texts
    )


def linear(colour):
    """Linear sRGB of a colour."""
    colour = np.array(to_rgb(colour))
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def contrast(*colours):
    """The contrast of two colours, 1 to 21, as WCAG 2 defines it."""
    dark, light = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in colours)
    return (light + 0.05) / (dark + 0.05)
