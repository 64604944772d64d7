import networkx as nx
import numpy as np
import pytest

from workbench.errors import DataError
from workbench.widgets.colours import OKABE_ITO, OTHER, branches, colours_of, levels, ramp


def shown(colours):
    return [colours.legend["colours"][code] for code in colours.codes]


def test_strings_are_categories_and_equal_strings_share_a_colour():
    got = colours_of(["b", "a", "b"], 3)
    assert got.legend["names"] == ["a", "b"]
    assert shown(got) == [OKABE_ITO[1], OKABE_ITO[0], OKABE_ITO[1]]


def test_beyond_seven_categories_the_small_ones_are_other():
    codes = np.repeat(np.arange(10), np.arange(10, 0, -1))
    got = colours_of(codes, len(codes), categories=list("abcdefghij"))
    assert got.legend["names"] == [*"abcdefg", "other"]
    assert [c for c, k in zip(shown(got), codes, strict=True) if k >= 7] == [OTHER] * 6


def test_minus_one_is_other():
    got = colours_of([0, -1, 1], 3, categories=["x", "y"])
    assert got.legend["names"] == ["x", "y", "other"]
    assert shown(got)[1] == OTHER


def test_values_run_along_the_ramp_in_order():
    got = colours_of(np.array([0.0, 0.5, 2.0]), 3, title="norm")
    assert got.codes[0] < got.codes[1] < got.codes[2]
    assert (got.legend["low"], got.legend["high"]) == ("0", "2")
    assert got.codes.max() == len(got.legend["colours"]) - 1


def test_many_integers_are_values_with_one_step_each():
    got = colours_of(np.arange(3, 15), 12)
    assert got.codes.tolist() == list(range(12))
    assert (got.legend["low"], got.legend["high"]) == ("3", "14")


def test_the_ramp_gets_lighter_all_the_way():
    rgb = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in ramp(24)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    assert (np.diff(linear @ [0.2126, 0.7152, 0.0722]) > 0).all()


def test_constant_values_have_one_colour():
    assert len(set(shown(colours_of(np.full(4, 2.5), 4)))) == 1


@pytest.mark.parametrize(
    ("color", "categories", "says"),
    [
        ([1, 2], None, "3 points"),
        ([0.0, np.nan, 1.0], None, "point 1"),
        ([0, 1, 2], ["a", "b"], "from -1 to 1"),
    ],
)
def test_bad_colours_are_one_sentence(color, categories, says):
    with pytest.raises(DataError, match=says):
        colours_of(color, 3, categories)


def parents_of(tree, root=0):
    parents = np.full(len(tree), -1)
    for parent, child in nx.bfs_edges(tree, root):
        parents[child] = parent
    return parents


def test_levels_are_distances_from_the_root():
    tree = nx.random_labeled_tree(300, seed=1)
    distances = nx.single_source_shortest_path_length(tree, 0)
    assert levels(parents_of(tree)).tolist() == [distances[i] for i in range(300)]


def test_levels_of_a_long_chain():
    assert levels(np.arange(-1, 999)).tolist() == list(range(1000))


@pytest.mark.parametrize("parents", [[0], [1, 0], [-1, 2, 3, 1]])
def test_cycles_are_refused(parents):
    with pytest.raises(DataError, match="cycle"):
        levels(np.array(parents))


def test_branches_of_a_balanced_tree_are_its_subtrees():
    tree = nx.balanced_tree(3, 4)
    branch, tops = branches(parents_of(tree))
    assert sorted(tops) == [1, 2, 3] and branch[0] == -1
    for k, top in enumerate(tops):
        assert set(np.flatnonzero(branch == k)) == {top} | nx.descendants(nx.bfs_tree(tree, 0), top)


def test_a_chain_of_single_children_is_followed_down():
    parents = np.array([-1, 0, 1, *[2] * 40, *[3] * 40])
    branch, tops = branches(parents)
    assert 3 in tops and (branch[:3] == -1).all()
