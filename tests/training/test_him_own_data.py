"""Names from a file of one's own go the way of the built-in ones."""

import pytest

from workbench.errors import DataError, ParameterError
from workbench.training.him_runs import hierarchy, him_run


def test_a_file_of_pairs_is_a_hierarchy_like_any_other_and_can_be_trained_on(tmp_path):
    mine = tmp_path / "tools.tsv"
    pairs = [(f"tool {i // 4}", f"tool {i}") for i in range(1, 60)]
    mine.write_text("".join(f"{parent}\t{child}\n" for parent, child in pairs), encoding="utf-8")
    h = hierarchy(str(mine))
    assert {(h.names[a], h.names[b]) for a, b in h.edges} == set(pairs)
    row = him_run(data=str(mine), steps=2, dim=2, encoder="bag", width=8, test_negatives=["hard"])
    assert 0 <= row["hard"]["f1"] <= 1


def test_a_file_that_is_not_there_and_a_name_that_is_none_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.tsv"):
        hierarchy(str(tmp_path / "none.tsv"))
    with pytest.raises(ParameterError, match="data must be one of"):
        hierarchy("minerals")
