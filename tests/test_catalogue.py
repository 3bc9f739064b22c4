import inspect

import pytest

from cpnas_tf import catalogue


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cifar10", "cifar10"),
        ("folder:pets", "folder:pets"),
        ("folder:/home/me/pets", "folder:pets"),
        ("folder:../pets//", "folder:pets"),
        ("folder:~/pets", "folder:pets"),
    ],
)
def test_where_a_folder_lies_is_not_shown(name, shown):
    assert catalogue.shown_name(name) == shown


def test_the_sizes_of_the_data_sets():
    sizes = {name: (data.train, data.test) for name, data in catalogue.DATASETS.items()}
    assert sizes == {
        "digits": (1437, 360),
        "fashion_mnist": (60_000, 10_000),
        "cifar10": (50_000, 10_000),
        "imagenet2012": (1_281_167, 50_000),
    }


@pytest.mark.parametrize("name", catalogue.METHODS)
def test_a_method_is_what_its_row_says(name):
    method = catalogue.METHODS[name]
    planned = method.load()
    assert callable(planned.plan)
    assert list(inspect.signature(planned.run).parameters) == ["self", "directory", "verbose"]
    parameters = inspect.signature(planned).parameters
    assert "seed" in parameters
    assert set(method.defaults) <= set(parameters)
    if method.varies_beta or method.beta is not None:
        assert "beta" in parameters
