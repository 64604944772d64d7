import json

import numpy as np
import pytest

from workbench.errors import DataError, ParameterError
from workbench.evaluation.recommendation import paired_bootstrap, report, target_ranks
from workbench.models.recommender import Recommender
from workbench.training.recommender_runs import popularity_run, recommender_run, sequences

MADE = {"n_users": 80, "n_items": 81, "depth": 3, "length": 10, "strength": 0.9}
SMALL = {"width": 8, "state": 4, "max_len": 12, "batch": 16, "lr": 1e-2, "epochs": 2}


def test_a_row_is_plain_and_its_figures_are_those_of_the_saved_model(tmp_path):
    path = tmp_path / "model.safetensors"
    row = recommender_run(**MADE, **SMALL, per_user=True, history=True, save=str(path))
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    model, data = Recommender.load(path), sequences("synthetic", **MADE)
    for seen in (True, False):
        ranks = target_ranks(model.score_last, data.test, data.n_items, max_len=12, seen=seen)
        assert report(ranks).flat() == pytest.approx(row["masked" if seen else "unmasked"])
    assert np.mean(row["per_user"]["ndcg@10"]) == pytest.approx(row["masked"]["ndcg@10"])
    assert len(row["per_user"]["hr@10"]) == row["targets"] == 80
    assert row["parameters"] == sum(p.numel() for p in model.parameters())
    assert len(row["history"]) == row["epochs"] == 2 and row["seconds_per_epoch"] > 0
    assert -1 <= row["radius_popularity"] <= 1 and row["radius_max"] >= row["radius"] > 0


def test_rolling_targets_are_averaged_by_user_and_pair_with_those_of_popularity():
    row = recommender_run(model="gru4rec", rolling=3, per_user=True, **MADE, width=8, epochs=1)
    popular = popularity_run(rolling=3, per_user=True, **MADE)
    assert row["targets"] == popular["targets"] == 240 and len(row["per_user"]["ndcg@10"]) == 80
    found = paired_bootstrap(row["per_user"]["ndcg@10"], popular["per_user"]["ndcg@10"])
    assert found.base == pytest.approx(popular["masked"]["ndcg@10"])
    assert popular["unmasked"]["hr@40"] <= popular["masked"]["hr@40"]


def test_runs_repeat_by_their_values():
    rows = [recommender_run(model="sasrec", **MADE, width=8, epochs=1, data_seed=s) for s in (0, 0, 1)]
    assert rows[0]["masked"] == rows[1]["masked"] != rows[2]["masked"]


def test_files_of_ones_own_are_data_and_what_is_unknown_is_named(tmp_path):
    data = sequences("synthetic", **MADE)
    path = tmp_path / "mine.csv"
    lines = [f"{u},{i},{t}" for u, s in enumerate(data.sequences) for t, i in enumerate(s.tolist())]
    path.write_text("user,item,time\n" + "\n".join(lines))
    assert popularity_run(data=str(path)) == popularity_run(**MADE)
    text = tmp_path / "mine.txt"
    text.write_text("\n".join(" ".join(map(str, [u, *s])) for u, s in enumerate(data.sequences)))
    assert popularity_run(data=str(text), core=2)["targets"] == 80
    with pytest.raises(ParameterError, match="strength belongs to data='synthetic'"):
        recommender_run(data=str(text), strength=0.5)
    with pytest.raises(ParameterError, match=r"no parameter 'widht'.*width"):
        recommender_run(widht=3)
    with pytest.raises(DataError):
        recommender_run(data=str(tmp_path / "absent.csv"))
