"""An ablation that never ran, for the tests of its table, its pictures and its report."""

import json

ACCURACIES = {  # [search seed, training seed]
    ("cpnas", 2.0): [[0.90, 0.92], [0.93, 0.95], [0.91, 0.91]],
    ("random", None): [[0.90, 0.88], [0.91, 0.91], [0.85, 0.89]],
}
MORE_ACCURACIES = {
    ("bnas", 0.0): [[0.89], [0.92], [0.90]],
    ("cpnas", -1.0): [[0.91], [0.92], [0.90]],
    ("cpnas", 0.33): [[0.93], [0.92], [0.93]],
    ("cpnas", 2.0): [[0.91], [0.95], [0.91]],
    ("pc_darts", None): [[0.88], [0.87], [0.89]],
    ("random", None): [[0.80], [0.82], [0.81]],
}


def genotype(name):
    return {"normal": [name] * 14, "reduce": [name] * 14}


def search(method, beta, seed, *, name="none", scores=None):
    return {
        "method": method,
        "beta": beta,
        "search_seed": seed,
        "genotype": genotype(name),
        "scores": scores,
        "seconds": 10.0,
        "images": 1000,
    }


def run(method, beta, search_seed, training_seed, accuracy):
    return {
        "method": method,
        "beta": beta,
        "search_seed": search_seed,
        "training_seed": training_seed,
        "accuracy": accuracy,
        "loss": 0.5,
        "seconds": 1.0,
        "images": 100,
    }


def searches_of(accuracies):
    return [search(*key, seed) for key, values in accuracies.items() for seed in range(len(values))]


def runs_of(accuracies):
    return [
        run(*key, search_seed, training_seed, accuracy)
        for key, values in accuracies.items()
        for search_seed, row in enumerate(values)
        for training_seed, accuracy in enumerate(row)
    ]


def write(folder, searches, runs):
    """Writes the files of an ablation into a folder."""
    for kind, name, records in (("searches", "search.json", searches), ("runs", "run.json", runs)):
        for number, record in enumerate(records):
            place = folder / kind / f"{number:03d}"
            place.mkdir(parents=True)
            (place / name).write_text(json.dumps(record))
    return folder
