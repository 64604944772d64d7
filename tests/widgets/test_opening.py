"""Any embedding on the disk: what is exact stays exact, and what is a shadow is said to be one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.data.embeddings import Embedding
from workbench.errors import DataError
from workbench.manifolds import Lorentz, PoincareBall
from workbench.widgets.opening import opened, shadow


def normal(n: int, d: int, size: float = 0.7) -> torch.Tensor:
    return size * torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("c", [0.3, 1.0, 2.0])
def test_two_hyperbolic_dimensions_come_in_the_unit_disk_with_their_distances(c):
    ball, disk = PoincareBall(c), PoincareBall(1.0)
    x = ball.expmap0(normal(12, 2))
    drawn, told = shadow(Embedding("a", x.numpy(), "poincare", c))
    drawn = torch.from_numpy(drawn)
    torch.testing.assert_close(disk.dist(drawn[:1], drawn[1:]), c**0.5 * ball.dist(x[:1], x[1:]))
    assert "itself" in told
    hyperboloid = Lorentz(c)
    y = hyperboloid.expmap0(torch.cat([torch.zeros(12, 1, dtype=torch.float64), normal(12, 2)], 1))
    again, _ = shadow(Embedding("a", y.numpy(), "lorentz", c))
    assert np.abs(again).max() < 1


def test_more_dimensions_are_a_shadow_that_says_what_it_keeps():
    x = PoincareBall(1.0).expmap0(normal(60, 5))
    drawn, told = shadow(Embedding("a", x.numpy(), "poincare"))
    assert drawn.shape == (60, 2) and np.linalg.norm(drawn, axis=1).max() < 1
    assert "shadows of 5 hyperbolic dimensions" in told and "nearest stay so" in told


def test_flat_points_keep_directions_and_the_order_of_radii_of_two_components():
    x = normal(50, 4).numpy() * [3.0, 2.0, 0.1, 0.1]
    drawn, told = shadow(Embedding("a", x, "euclidean"))
    middle = x - x.mean(0)
    _, _, axes = np.linalg.svd(middle)
    flat = middle @ axes[:2].T
    assert (np.argsort(np.linalg.norm(drawn, axis=1)) == np.argsort(np.linalg.norm(flat, axis=1))).all()
    cosines = (drawn / np.linalg.norm(drawn, axis=1)[:, None]) @ (
        drawn / np.linalg.norm(drawn, axis=1)[:, None]
    ).T
    flat /= np.linalg.norm(flat, axis=1)[:, None]
    np.testing.assert_allclose(cosines, flat @ flat.T, atol=1e-9)
    assert "distances are not kept" in told and "% of the variance" in told
    same, _ = shadow(Embedding("a", np.ones((5, 3)), "euclidean"))  # all in one place
    assert np.abs(same).max() == 0


def test_a_file_is_opened_with_its_tree(tmp_path):
    (tmp_path / "a.csv").write_text("name,x,y\nroot,0,0\nleft,.5,.1\nleaf,.7,.2\n")
    (tmp_path / "tree.tsv").write_text("root\tleft\nleft\tleaf\n")
    view, told = opened(tmp_path / "a.csv", edges=tmp_path / "tree.tsv")
    assert view.index("leaf") == 2 and told.startswith("a.csv: 3 points")
    assert view._legend["title"] == "depth"
    plain, _ = opened(tmp_path / "a.csv")
    assert plain._legend["title"] == "distance from the centre" and plain._legend["low"] == "0"
    page = view.to_html(tmp_path / "a.html")
    assert page.stat().st_size > 1000
    (tmp_path / "tree.tsv").write_text("root\tleft\nleft\troot\n")
    with pytest.raises(DataError):  # no tree: paths to the root would never end
        opened(tmp_path / "a.csv", edges=tmp_path / "tree.tsv")


def test_wordnet_needs_no_file():
    view, told = opened()
    assert view.points.shape == (82115, 2) and "82,115" in told


def test_the_nearest_are_those_of_the_space_itself(tmp_path):
    rng = np.random.default_rng(3)
    x = 0.5 * rng.normal(size=(40, 5)) / 5**0.5
    np.save(tmp_path / "x.npy", x)
    view, _ = opened(tmp_path / "x.npy", space="poincare", c=1.0)
    view.selected = 7
    gap = np.square(x - x[7]).sum(1) / ((1 - np.square(x).sum(1)) * (1 - np.square(x[7]).sum()))
    expected = np.argsort(gap)[1:9]
    assert [i for i, _ in view._near["near"]] == expected.tolist()
    np.testing.assert_allclose([d for _, d in view._near["near"]], 2 * np.arcsinh(np.sqrt(gap[expected])))
    assert view.metric == "in 5 dimensions"
