"""The edges in the paper's order, the file's format, and each broken file in one clear line."""

import dataclasses
import errno
import json
import os
import pathlib
import random
import sys
import types

import pytest

from cpnas_tf import genotypes
from cpnas_tf.genotypes import CELL_TYPES, CHOICES, EDGES, OPERATIONS, PUBLISHED, Genotype

NORMAL = tuple(OPERATIONS[number % 8] for number in range(14))
REDUCE = tuple(OPERATIONS[(3 * number + 1) % 8] for number in range(14))
GENOTYPE = Genotype(NORMAL, REDUCE)
KEYS = 'a genotype is a JSON object with the keys "normal" and "reduce", received: '


def as_json(normal=NORMAL, reduce=REDUCE, **more):
    return json.dumps({"normal": normal, "reduce": reduce, **more})


def one_line(error):
    """The message of a caught error, which must be a single line."""
    message = str(error.value)
    assert message
    assert len(message.splitlines()) == 1
    return message


def test_operations_are_the_eight_of_darts():
    assert OPERATIONS == (
        "none",
        "skip_connect",
        "max_pool_3x3",
        "avg_pool_3x3",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    )


def test_14_edges_are_ordered_by_target_then_source():
    to_node_2 = ((0, 2), (1, 2))
    to_node_3 = ((0, 3), (1, 3), (2, 3))
    to_node_4 = ((0, 4), (1, 4), (2, 4), (3, 4))
    to_node_5 = ((0, 5), (1, 5), (2, 5), (3, 5), (4, 5))
    assert to_node_2 + to_node_3 + to_node_4 + to_node_5 == EDGES
    assert len(EDGES) == 14


def test_28_choices_are_the_normal_cell_then_the_reduction_cell():
    assert GENOTYPE.choices == NORMAL + REDUCE
    assert len(GENOTYPE.choices) == len(CHOICES) == 28
    assert Genotype.from_choices(iter(NORMAL + REDUCE)) == GENOTYPE
    assert [OPERATIONS[index] for index in GENOTYPE.indices] == list(NORMAL + REDUCE)
    assert GENOTYPE.indices[:3] == (0, 1, 2)
    assert GENOTYPE.indices[14:17] == (1, 4, 7)


def test_genotypes_are_values():
    same = Genotype(list(NORMAL), list(REDUCE))
    assert same == GENOTYPE
    assert hash(same) == hash(GENOTYPE)
    assert Genotype(REDUCE, NORMAL) != GENOTYPE
    with pytest.raises(dataclasses.FrozenInstanceError):
        same.normal = REDUCE


def test_json_is_two_keys_with_14_names_each():
    pairs = json.loads(GENOTYPE.to_json(), object_pairs_hook=list)
    assert pairs == [("normal", list(NORMAL)), ("reduce", list(REDUCE))]
    assert GENOTYPE.to_json().endswith("}\n")


def test_json_round_trips_for_random_genotypes(tmp_path):
    generator = random.Random(0)
    for _ in range(20):
        genotype = Genotype.from_choices(generator.choices(OPERATIONS, k=28))
        assert Genotype.from_json(genotype.to_json()) == genotype
        genotype.save(tmp_path / "genotype.json")
        assert (tmp_path / "genotype.json").read_text() == genotype.to_json()
        assert Genotype.load(tmp_path / "genotype.json") == genotype


def test_a_file_laid_out_otherwise_is_the_same_genotype(tmp_path):
    path = tmp_path / "genotype.json"
    path.write_text(json.dumps({"reduce": REDUCE, "normal": NORMAL}, indent=7))
    assert Genotype.load(str(path)) == GENOTYPE


@pytest.mark.parametrize("count", [0, 27, 29])
def test_a_wrong_number_of_choices_is_refused(count):
    with pytest.raises(ValueError, match="cell needs a list of 14 operations, received: "):
        Genotype.from_choices((OPERATIONS * 4)[:count])


# The listings of DARTS_V2 and PC_DARTS_cifar in the code that was published with each: two inputs a
# node, in the nodes' order.
LISTINGS = {
    "darts": {
        "normal": "sep_conv_3x3 0 sep_conv_3x3 1 sep_conv_3x3 0 sep_conv_3x3 1 "
        "sep_conv_3x3 1 skip_connect 0 skip_connect 0 dil_conv_3x3 2",
        "reduce": "max_pool_3x3 0 max_pool_3x3 1 skip_connect 2 max_pool_3x3 1 "
        "max_pool_3x3 0 skip_connect 2 skip_connect 2 max_pool_3x3 1",
    },
    "pc_darts": {
        "normal": "sep_conv_3x3 1 skip_connect 0 sep_conv_3x3 0 dil_conv_3x3 1 "
        "sep_conv_5x5 0 sep_conv_3x3 1 avg_pool_3x3 0 dil_conv_3x3 1",
        "reduce": "sep_conv_5x5 1 max_pool_3x3 0 sep_conv_5x5 1 sep_conv_5x5 2 "
        "sep_conv_3x3 0 sep_conv_3x3 3 sep_conv_3x3 1 sep_conv_3x3 2",
    },
}


@pytest.mark.parametrize("name", LISTINGS)
@pytest.mark.parametrize("cell", CELL_TYPES)
def test_published_cells_are_those_of_the_listings(name, cell):
    words = LISTINGS[name][cell].split()
    listed = list(zip(words[::2], map(int, words[1::2]), strict=True))
    carried = getattr(PUBLISHED[name], cell)
    for node in range(2, 6):
        edges = [number for number, (_, target) in enumerate(EDGES) if target == node]
        inputs = {(carried[number], EDGES[number][0]) for number in edges} - {
            ("none", source) for source in range(node)
        }
        assert inputs == set(listed[2 * (node - 2) : 2 * (node - 1)])
        assert len(inputs) == 2


def test_published_genotypes_are_loaded_by_name(tmp_path, monkeypatch):
    assert set(PUBLISHED) == set(LISTINGS)
    for name, genotype in PUBLISHED.items():
        assert Genotype.load(name) is genotype
        assert Genotype.from_json(genotype.to_json()) == genotype
    monkeypatch.chdir(tmp_path)
    GENOTYPE.save("darts")
    assert Genotype.load("./darts") == GENOTYPE


@pytest.mark.parametrize(
    ("changed", "to"),
    [
        ("INTERMEDIATE_NODES = 4", "INTERMEDIATE_NODES = 3"),
        ("INTERMEDIATE_NODES = 4", "INTERMEDIATE_NODES = 5"),
        ("tuple(OPERATION_FUNCTIONS)", "tuple(OPERATION_FUNCTIONS)[:4]"),
    ],
)
def test_published_genotypes_are_not_cut_to_another_search_space(monkeypatch, changed, to):
    other = types.ModuleType("other_space")
    monkeypatch.setitem(sys.modules, "other_space", other)
    source = pathlib.Path(genotypes.__file__).read_text(encoding="utf-8")
    exec(source.replace(changed, to, 1), vars(other))
    for name in LISTINGS:
        with pytest.raises(ValueError, match=f"{name} has other nodes or operations"):
            other.Genotype.load(name)
    assert len(other.Genotype.from_choices(["none"] * len(other.CHOICES)).normal) == len(
        other.EDGES
    )


BROKEN = {
    "empty": (b"", "this is not JSON"),
    "blank": (b" \n\n", "this is not JSON"),
    "not JSON": (b"normal = skip_connect\n", "this is not JSON"),
    "truncated": (GENOTYPE.to_json()[:-10].encode(), "this is not JSON"),
    "two objects": (2 * as_json().encode(), "this is not JSON: Extra data"),
    "a list": (json.dumps(NORMAL + REDUCE).encode(), KEYS + "list"),
    "null": (b"null", KEYS + "NoneType"),
    "a number": (b"28", KEYS + "int"),
    "a huge number": (b"9" * 5000, "limit"),
    "no cell": (b"{}", KEYS + "[]"),
    "one cell": (json.dumps({"normal": NORMAL}).encode(), KEYS + "['normal']"),
    "an extra key": (as_json(stem="cifar").encode(), KEYS + "['normal', 'reduce', 'stem']"),
    "a key of two lines": (as_json(**{"a\nb": 1}).encode(), KEYS + r"['a\nb', 'normal', "),
    "a key twice": (
        as_json().replace('"reduce"', '"normal"').encode(),
        "each key once, received 2 times: 'normal'",
    ),
    "a key twice beside the other": (
        as_json().replace("}", ', "reduce": []}').encode(),
        "each key once, received 2 times: 'reduce'",
    ),
    "13 edges": (
        as_json(normal=NORMAL[:13]).encode(),
        "the normal cell needs a list of 14 operations, received: 13",
    ),
    "15 edges": (
        as_json(reduce=(*REDUCE, "none")).encode(),
        "the reduce cell needs a list of 14 operations, received: 15",
    ),
    "no list": (
        as_json(reduce="skip_connect").encode(),
        "the reduce cell needs a list of 14 operations, received: 'skip_connect'",
    ),
    "14 characters": (as_json(reduce="x" * 14).encode(), "received: 'xxxxxxxxxxxxxx'"),
    "an object of 14": (
        as_json(reduce={str(n): "none" for n in range(14)}).encode(),
        "the reduce cell needs a list of 14 operations, received: {'0': 'none'",
    ),
    "an unknown name": (
        as_json(normal=("conv_7x7", *NORMAL[1:])).encode(),
        "unknown operation 'conv_7x7' in the normal cell, expected one of: none, skip_connect, ",
    ),
    "another case": (
        as_json(reduce=(*REDUCE[:13], "None")).encode(),
        "unknown operation 'None' in the reduce cell",
    ),
    "a name of two lines": (
        as_json(normal=("none\nnone", *NORMAL[1:])).encode(),
        r"unknown operation 'none\nnone' in the normal cell",
    ),
    "a null name": (as_json(normal=(None, *NORMAL[1:])).encode(), "unknown operation None"),
    "numbers": (as_json(normal=GENOTYPE.indices[:14]).encode(), "unknown operation 0 in the"),
    "nested lists": (
        as_json(normal=[[name] for name in NORMAL]).encode(),
        "unknown operation ['none'] in the normal cell",
    ),
    "deep lists": (b"[" * 100_000, "this is not JSON"),
    "deep objects": (b'{"normal":' * 100_000, "this is not JSON"),
    "invalid UTF-8": (GENOTYPE.to_json().encode().replace(b"n", b"\xff", 1), "can't decode byte"),
    "UTF-16": (GENOTYPE.to_json().encode("utf-16"), "can't decode byte"),
    "a byte order mark": (GENOTYPE.to_json().encode("utf-8-sig"), "Unexpected UTF-8 BOM"),
}


@pytest.mark.parametrize(("content", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line_naming_file_and_value(tmp_path, content, reason):
    path = tmp_path / "genotype.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read the genotype") as error:
        Genotype.load(path)
    message = one_line(error)
    assert str(path) in message
    assert reason in message


@pytest.mark.parametrize("depth", range(850, 1050, 7))
def test_nesting_at_the_recursion_limit_is_one_line(depth):
    """The value could be shallow enough to be read and too deep to be printed."""
    deep = "[" * depth + "]" * depth
    for text in (
        deep,
        f'{{"normal": {deep}, "reduce": []}}',
        f'{{"normal": [{deep}], "reduce": 0}}',
    ):
        with pytest.raises(ValueError, match="genotype|cell") as error:
            Genotype.from_json(text)
        one_line(error)


def test_a_missing_file_is_one_line(tmp_path):
    path = tmp_path / "genotype.json"
    with pytest.raises(ValueError, match="genotype file not found: ") as error:
        Genotype.load(path)
    assert str(path) in one_line(error)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    GENOTYPE.save("~/genotype.json")
    assert os.listdir(tmp_path) == ["genotype.json"]
    assert Genotype.load("~/genotype.json") == GENOTYPE


def test_what_is_no_file_is_one_line(tmp_path):
    GENOTYPE.save(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")  # a pipe that nobody writes to
    for path, reason in (
        (tmp_path, "directory"),
        (tmp_path / "file" / "inside", "directory"),
        (tmp_path / "fifo", "this is no regular file"),
        ("/dev/zero", "this is no regular file"),
    ):
        with pytest.raises(ValueError, match=f"cannot read the genotype.*{reason}") as error:
            Genotype.load(path)
        assert str(path) in one_line(error)


def mutated(text, generator):
    """The text with one to three random edits: bytes changed or removed, a piece cut or doubled."""
    text = bytearray(text)
    for _ in range(generator.randint(1, 3)):
        text = text or bytearray(b"{")
        start, stop = sorted(generator.choices(range(len(text)), k=2))
        piece = text[start:stop]
        match generator.randrange(5):
            case 0:
                text[start] = generator.randrange(256)
            case 1:
                text[start] = generator.choice(b' \n"[]{},:0')
            case 2:
                text[start : start + generator.randint(1, 3)] = b""
            case 3:
                text[start:stop] = b""
            case 4:
                place = generator.randrange(len(text))
                text[place:place] = piece
    return bytes(text)


def load(path):
    """The genotype of a file and None, or None and the message of why it cannot be read."""
    try:
        return Genotype.load(path), None
    except ValueError as error:
        return None, str(error)


def test_any_damage_gives_a_genotype_or_one_line(tmp_path):
    generator = random.Random(0)
    path = tmp_path / "genotype.json"
    valid = 0
    for _ in range(1000):
        content = mutated(GENOTYPE.to_json().encode(), generator)
        path.write_bytes(content)
        genotype, message = load(path)
        if genotype is None:
            assert str(path) in message
            assert len(message.splitlines()) == 1
        else:
            cells = json.loads(content)
            assert cells == {"normal": list(genotype.normal), "reduce": list(genotype.reduce)}
            assert len(genotype.choices) == 28
            assert set(genotype.choices) <= set(OPERATIONS)
            valid += 1
    assert 5 < valid < 500, "the damage should be neither always fatal nor mostly harmless"


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_save_keeps_the_old_file(tmp_path, monkeypatch, function):
    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "genotype.json"
    GENOTYPE.save(path)
    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space left"):
        Genotype(REDUCE, NORMAL).save(path)
    assert os.listdir(tmp_path) == ["genotype.json"]
    assert Genotype.load(path) == GENOTYPE
