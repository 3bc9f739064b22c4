"""How a benchmark ends: a table of its figures, and as the last line one JSON object."""

import json


def print_figures(figures):
    """Prints figures by name, a line each, then all of them as JSON."""
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {value}")
    print(json.dumps(figures))
