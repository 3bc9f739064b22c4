import pytest

from cpnas_tf.reports.paper_tables import TABLE_1, TABLE_2, TABLE_3


def test_table_3_has_the_ratios_of_its_figures_but_for_two_of_the_papers():
    memory, flops, *_ = TABLE_3["WRN-22"]
    wrong = {
        (name, ratio)
        for name, (mbit, mflops, saving, speedup) in TABLE_3.items()
        for ratio, printed in ((memory / mbit, saving), (flops / mflops, speedup))
        if ratio != pytest.approx(printed, rel=3e-3)
    }
    assert wrong == {
        ("CP-NAS (Medium)", memory / 4.85),
        ("WRN-22 (BONN), 1-bit", flops / 17.03),
    }


def test_memory_is_that_of_the_parameters():
    """A few parameters of a 1-bit network are real: at most 32 bits, at least 1 a parameter."""
    for name, (mbit, *_) in TABLE_3.items():
        _, parameters, weights, _ = TABLE_1[name]
        assert parameters * weights * 0.99 <= mbit <= 1.4 * parameters * weights


def test_more_bits_never_hurt_a_network_of_the_paper():
    assert TABLE_1["WRN-22"][0] < TABLE_1["WRN-22 (PCNN)"][0] < TABLE_1["WRN-22 (BONN), 1-bit"][0]
    assert TABLE_2["CP-NAS *"][:2] < TABLE_2["CP-NAS **"][:2]
    for table in (TABLE_1, TABLE_2):
        for *_, weights, activations in table.values():
            assert (weights, activations) in {(32, 32), (1, 32), (1, 1)}
