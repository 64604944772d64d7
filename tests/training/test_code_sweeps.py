"""Cells of quantiser sweeps against the parts they are made of."""

import numpy as np
import pytest
import torch

from workbench.data import trees, wordnet
from workbench.evaluation import code_report
from workbench.manifolds import PoincareBall
from workbench.models import sarkar
from workbench.models.residual_quantizer import ResidualQuantizer
from workbench.runs.recording import plain
from workbench.training import code_sweeps

FAMILY = "feline.n.01"
SETTINGS = dict(levels=2, codes=6)
pytestmark = pytest.mark.filterwarnings("error:.*codes carry:UserWarning")


def test_codes_of_is_the_mean_of_reports_over_seeds():
    h = trees.balanced(3, 3)
    x = sarkar(h, 2, 1.0)
    found = code_sweeps.codes_of(x, PoincareBall(), h, seeds=[0, 1], **SETTINGS)
    with pytest.warns() if not found["fits"] else torch.no_grad():
        fits = [ResidualQuantizer(PoincareBall(), 2, 2, 6, seed=s).fit(x) for s in (0, 1)]
    reports = [code_report(q, x, h, seed=s) for s, q in enumerate(fits)]
    for name in code_sweeps.KEPT:
        assert found[name] == pytest.approx(np.mean([r[name] for r in reports]))
        assert found["spread"][name] == pytest.approx(np.std([r[name] for r in reports]))
    assert plain(found, "found") == found


@pytest.mark.parametrize("c", [0.0, 0.5])
def test_an_embedding_cell_answers_every_entry_and_its_stress_falls_with_steps(c):
    sweep = [SETTINGS, SETTINGS | {"order": "naive"}]
    short, longer = (code_sweeps.embedding_cell(FAMILY, c, 3, sweep, steps, seed=0) for steps in (1, 25))
    assert longer["stress"] < short["stress"] < 1
    assert len(longer["cells"]) == 2
    if not c:  # all orders are one in flat space
        assert longer["cells"][0] == longer["cells"][1]


def test_recall_is_there_when_asked_for():
    found = code_sweeps.embedding_cell(FAMILY, 1.0, 2, [SETTINGS | {"epochs": 1}], steps=1, seed=0)
    assert 0 <= found["cells"][0]["recall"] <= 1
    assert len(wordnet.subtree(FAMILY)) > 6


def test_a_synthetic_cell_gives_both_quantisers_the_same_tree():
    found = code_sweeps.synthetic_cell(2, 4, 1.0, **SETTINGS)
    assert set(found) == {"HRQ", "RQ"}
    assert found["HRQ"]["available"] == found["RQ"]["available"] == pytest.approx(2 * np.log(6))
    assert found["RQ"]["needed"] == 0
