from __future__ import annotations

import numpy as np
import pytest

from openrlhf_maxk.evaluation.reports.paper import DATA_SETS, known_data_set, paper_curves, paper_methods, paper_table


def test_shapes():
    assert paper_table(1).values.shape == (3, 4)
    assert paper_table(2).values.shape == paper_table(3).values.shape == (6, 5)
    assert paper_table(4).values.shape == (5, 4)
    for number in range(5, 15):
        table = paper_table(number)
        assert table.values.shape == (6, 9)
        assert [column.k for column in table.columns] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
        assert {column.metric for column in table.columns} == {"max" if number % 2 == 0 else "pass"}
        assert {column.data_set for column in table.columns} == {DATA_SETS[(number - 5) // 2]}
        assert table.rows == tuple(paper_methods())


@pytest.mark.parametrize(
    ("number", "row", "data_set", "metric", "k", "value"),
    [
        (1, "Binary reward", "LiveCodeBench", "pass", 128, 0.230),
        (2, "Off-policy BoN (ours)", "CodeForces", "max", 128, 0.255),
        (3, "BoN LOO-1", "LiveBench", "max", 1, 0.202),
        (4, "RL PPO=3 four epochs", "LiveCodeBench", "max", 128, 0.627),
        (4, "RL four epochs", "CodeContests", "max", 1, 0.428),
        (5, "Off-policy BoN (ours)", "CodeContests", "pass", 256, 0.587),
        (6, "BoN-max mean", "CodeContests", "max", 256, 0.732),
        (7, "BoN mean", "LiveCodeBench", "pass", 16, 0.432),
        (8, "Base model", "LiveCodeBench", "max", 1, 0.266),
        (9, "BoN mean", "LiveBench", "pass", 256, 0.294),
        (10, "Off-policy BoN (ours)", "LiveBench", "max", 64, 0.249),
        (11, "BoN LOO-1", "CodeForces", "pass", 4, 0.017),
        (12, "BoN-max second", "CodeForces", "max", 32, 0.193),
        (13, "Base model", "MBPP", "pass", 128, 0.554),
        (14, "Off-policy BoN (ours)", "MBPP", "max", 2, 0.235),
    ],
)
def test_some_values(number, row, data_set, metric, k, value):
    assert paper_table(number).value(row, data_set, metric, k) == value


def test_tables_agree_with_each_other():
    for number, k in ((2, 128), (3, 1)):
        for data_set in DATA_SETS:
            ks, curves = paper_curves(data_set, "max")
            for row in paper_methods():
                assert paper_table(number).value(row, data_set, "max", k) == curves[row][ks.tolist().index(k)]
    for data_set in ("CodeContests", "LiveCodeBench"):
        ks, curves = paper_curves(data_set, "pass")
        for k in (1, 128):
            assert paper_table(1).value("Base model", data_set, "pass", k) == curves["Base model"][ks == k]


def test_curves_grow_with_k_and_max_is_at_least_pass():
    for data_set in DATA_SETS:
        _, highest = paper_curves(data_set, "max")
        _, passed = paper_curves(data_set, "pass")
        for row in paper_methods():
            assert np.all(np.diff(highest[row]) >= 0)
            assert np.all(np.diff(passed[row]) >= 0)
            assert np.all(highest[row] >= passed[row])


def test_names():
    assert known_data_set("code_contests") == "CodeContests"
    assert known_data_set("mbpp") == "MBPP"
    assert known_data_set("mini") is None
    assert paper_table(2).significant == tuple(
        ("Off-policy BoN (ours)", name) for name in ("CodeContests", "LiveCodeBench", "CodeForces", "MBPP")
    )
    with pytest.raises(KeyError, match="Tables 1 to 14, not 15"):
        paper_table(15)
    with pytest.raises(KeyError, match="no numbers on 'mini'"):
        paper_curves("mini", "max")
    with pytest.raises(KeyError, match="Table 1 has no"):
        paper_table(1).value("Base model", "MBPP", "max", 1)
