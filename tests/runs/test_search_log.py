import pytest
from fake_epochs import run_epochs
from fake_epochs import write as write_epochs
from fake_search import run_search, without_parents, write_log
from fake_trainings import run_trainings
from fake_trainings import write as write_trainings

from cpnas_tf.genotypes import CHOICES, OPERATIONS
from cpnas_tf.runs import search_log


@pytest.mark.parametrize("count", [1, 3, 35])
def test_log_is_read_as_it_was_written(tmp_path, count):
    rows = run_search(rounds=1)[0][:count]
    assert search_log.read(write_log(tmp_path / "search.csv", rows)) == rows


def test_a_log_without_parents_leaves_their_cells_empty(tmp_path):
    rows = without_parents(run_search(rounds=1)[0])
    path = write_log(tmp_path / "search.csv", rows)
    assert {line.split(",")[-3] for line in path.read_text().splitlines()[1:]} == {""}
    assert search_log.read(path) == rows
    totals = search_log.totals(rows)
    mean = sum(row["child_accuracy"] for row in rows) / len(rows)
    assert totals["child_accuracy"] == pytest.approx(mean)
    assert totals["parent_accuracy"] is None


def test_log_is_a_table_with_a_named_column_an_edge(tmp_path):
    rows, _, _ = run_search(rounds=1)
    first = {**rows[0], "child_accuracy": 0.1, "parent_accuracy": 1 / 3, "z": 0.5, "seconds": 2.0}
    header, line = write_log(tmp_path / "search.csv", [first]).read_text().splitlines()
    assert header.startswith("stage,round,sample,normal_0_2,normal_1_2,normal_0_3,")
    assert header.endswith(",reduce_4_5,child_accuracy,parent_accuracy,z,seconds")
    assert header.count(",") == line.count(",") == 3 + 28 + 4 - 1
    assert line.startswith(f"0,0,0,{first['normal_0_2']},{first['normal_1_2']},")
    assert line.endswith(f",{first['reduce_4_5']},0.1,0.3333333333333333,0.5,2.000")


def test_the_log_of_a_search_by_epochs(tmp_path):
    measures = {"loss": 1.5, "accuracy": 0.1, "architecture_loss": None}
    row = {"choices": OPERATIONS[:7] * 4, "architecture_accuracy": None, **measures}
    path = tmp_path / "search.csv"
    search_log.write_epochs(path, [{"epoch": 1, "seconds": 2.0, **row}])
    header, line = path.read_text().splitlines()
    assert header.startswith("epoch,normal_0_2,normal_1_2,normal_0_3,")
    assert header.endswith(",loss,accuracy,architecture_loss,architecture_accuracy,seconds")
    assert line.startswith("1,none,skip_connect,max_pool_3x3,")
    assert line.endswith(",1.5,0.1,,,2.000")
    assert header.count(",") == line.count(",") == 1 + 28 + 5 - 1
    assert search_log.kind_of(search_log.read(path)) == "epochs"
    write_log(path, run_search(rounds=1)[0])
    assert search_log.kind_of(search_log.read(path)) == "architectures"


@pytest.mark.parametrize("count", [1, 2, 50])
def test_epochs_are_read_as_they_were_written(tmp_path, count):
    rows = run_epochs(count)
    assert search_log.read(write_epochs(tmp_path / "search.csv", rows)) == rows


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epoch,", "era,", "line 1: expected 34 columns: epoch, normal_0_2, ..., reduce_4_5, loss"),
        ("\n2,", "\n1,", "line 3: epoch must increase"),
        (",0.5,,,", ",,,,", "line 2: could not convert"),
        (",0.5,,,", ",0.5,,inf,", "line 2: architecture_accuracy must be finite, received inf"),
        (",1.500\n", "\n", "line 2: expected 34 values, received 33"),
        ("\n1,none", "\n1,non", "line 2: unknown operation 'non'"),
        ("\n1,none", "\n2,none", "line 2: the first row must be epoch 1: rows are missing"),
    ],
)
def test_a_broken_log_of_epochs_is_one_clear_line(tmp_path, old, new, message):
    first, *rest = run_epochs(3)
    path = write_epochs(tmp_path / "search.csv", [{**first, CHOICES[0]: "none"}, *rest])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as raised:
        search_log.read(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("parent", [False, True])
def test_trainings_are_read_as_they_were_written(tmp_path, parent):
    rows = run_trainings(parent=parent)
    path = write_trainings(tmp_path / "search.csv", rows)
    assert search_log.read(path) == rows
    assert search_log.kind_of(rows) == "trainings"
    header, line, *_ = path.read_text().splitlines()
    assert header.startswith("training,phase,round,epochs,normal_0_2,normal_1_2,")
    columns = ",child_loss,child_accuracy,parent_loss,parent_accuracy,score,predicted,left_out"
    assert header.endswith(f",reduce_4_5{columns},seconds")
    assert line.startswith("1,random,0,2,")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("training,", "trial,", "line 1: expected 40 columns: training, phase, round, epochs, nor"),
        ("\n2,", "\n1,", "line 3: training must increase"),
        (
            "\n1,random",
            "\n1,chance",
            "line 2: phase must be one of random, guided, final, rec.*'ch",
        ),
        ("\n1,random,0,2,", "\n1,random,0,2.5,", "line 2: invalid literal"),
        (",1.500\n", ",nan\n", "line 2: seconds must be finite, received nan"),
        (",1.500\n", "\n", "line 2: expected 40 values, received 39"),
    ],
)
def test_a_broken_log_of_trainings_is_one_clear_line(tmp_path, old, new, message):
    path = write_trainings(tmp_path / "search.csv", run_trainings())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as raised:
        search_log.read(path)
    assert str(path) in str(raised.value)


def test_rounds_of_trainings():
    rounds = search_log.by_round(run_trainings())
    assert list(rounds) == [0, 1, 2, 3]
    assert [len(group) for group in rounds.values()] == [5, 2, 2, 2]
    names = [search_log.round_name(group) for group in rounds.values()]
    assert names == ["random", "guided, round 1", "guided, round 2", "final"]


def test_every_result_needs_its_seconds(tmp_path):
    with pytest.raises(ValueError, match="longer than"):
        search_log.write(tmp_path / "search.csv", [], [1.0])
    assert not (tmp_path / "search.csv").exists()


def replaced(old, new):
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "line 1: expected 35 columns"),
        (lambda text: text.splitlines()[0], "holds no row yet"),
        (replaced("child_accuracy", "accuracy"), "line 1: expected 35 columns"),
        (lambda text: text[:-30], "line 36: "),
        (lambda text: text + "7,0\n", "line 37: expected 35 values, received 2"),
        (lambda text: text + text.splitlines()[-1], "line 37: stage, round, sample must incr"),
        (replaced(",skip_connect,", ",skip,"), "unknown operation 'skip' in column"),
        (replaced("\n0,0,0,", "\n0,x,0,"), "line 2: .*'x'"),
        (replaced("\n0,0,0,", "\n7,0,0,"), "line 2: stage must be 0 to 6, received 7"),
        (replaced("\n0,0,0,", "\n0,0,1,"), "line 2: the first row must be stage 0, round 0"),
        (replaced(",1.500\n", ",nan\n"), "line 2: seconds must be finite, received nan"),
        (replaced("0,0,0,", '0,0,"0,'), "cannot read the search log"),
        (lambda text: text.encode() + b"\xff\n", "cannot read the search log"),
    ],
)
def test_broken_log_is_one_clear_line(tmp_path, damage, message):
    path = write_log(tmp_path / "search.csv", run_search(rounds=1)[0])
    damaged = damage(path.read_text())
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(ValueError, match=message) as raised:
        search_log.read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "message"), [("missing", "not found"), (".", "Is a directory")])
def test_log_that_is_no_file_is_one_clear_line(tmp_path, name, message):
    with pytest.raises(ValueError, match=message) as raised:
        search_log.read(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


@pytest.mark.parametrize("rounds", [1, 3])
def test_survival_counts_the_edges_that_hold_each_operation(rounds):
    rows, history, _ = run_search(rounds=rounds)
    expected = {
        stage: {name: sum(name in left for left in edges.values()) for name in OPERATIONS}
        for stage, edges in enumerate(history)
    }
    assert search_log.survival(rows) == expected
    assert [sum(counts.values()) for counts in expected.values()] == [
        28 * k for k in range(8, 1, -1)
    ]


def test_survival_waits_for_a_stage_s_first_round():
    rows, _, _ = run_search(rounds=2)
    assert list(search_log.survival(rows[:7])) == []
    assert list(search_log.survival(rows[:8])) == [0]
    assert list(search_log.survival(rows[: 16 + 6])) == [0]
    assert list(search_log.survival(rows[: 16 + 7])) == [0, 1]


def test_survival_of_a_search_over_fewer_operations():
    rows, _, _ = run_search(rounds=2, operations=OPERATIONS[:3])
    counts = search_log.survival(rows)
    assert [sum(stage.values()) for stage in counts.values()] == [28 * 3, 28 * 2]
    assert counts[0]["dil_conv_5x5"] == 0


@pytest.mark.parametrize("rounds", [1, 2])
def test_lifetimes_end_with_the_stage_that_drops_an_operation(rounds):
    rows, history, genotype = run_search(rounds=rounds)
    lifetimes = search_log.lifetimes(rows)
    for choice, kept in zip(CHOICES, genotype.choices, strict=True):
        for name in OPERATIONS:
            stages = sum(name in edges[choice] for edges in history)
            assert lifetimes[choice][name] == stages
        assert sorted(lifetimes[choice].values()) == [1, 2, 3, 4, 5, 6, 7, 7]
        assert lifetimes[choice][kept] == 7


def test_mean_scores_are_over_all_edges_of_a_stage():
    rows, history, _ = run_search(rounds=2)
    scores = search_log.mean_scores(rows)
    for stage, edges in enumerate(history):
        assert set(scores[stage]) == set().union(*edges.values())
    sampled = [
        row["z"] for row in rows for name in CHOICES if (row["stage"], row[name]) == (2, "none")
    ]
    assert scores[2]["none"] == pytest.approx(sum(sampled) / len(sampled))


def test_totals():
    rows, _, _ = run_search(rounds=1)
    stages = search_log.by_stage(rows)
    assert [search_log.totals(group)["architectures"] for group in stages.values()] == [
        *(8, 7, 6, 5, 4, 3, 2)
    ]
    assert [row for group in stages.values() for row in group] == rows
    found = search_log.totals(rows[:2])
    assert found["seconds"] == 3.0
    for name in ("child_accuracy", "parent_accuracy"):
        assert found[name] == pytest.approx((rows[0][name] + rows[1][name]) / 2)
