"""The oracles themselves, against closed forms and plain loops over scalars."""

import math

import pytest
import torch

from workbench.scan.reference import scan_reference, ssd_reference


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scan_follows_the_definition_number_by_number():
    L, d, n = 7, 2, 3
    u, delta, z = (randn(1, L, d, seed=i) for i in range(3))
    A, B, C = -randn(d, n, seed=3).abs(), randn(1, L, n, seed=4), randn(1, L, n, seed=5)
    D, bias, h0 = randn(d, seed=6), randn(d, seed=7), randn(1, d, n, seed=8)
    out, last = scan_reference(u, delta, A, B, C, D, z, bias, h0, None, True)
    for i in range(d):
        h = h0[0, i].tolist()
        for t in range(L):
            step = math.log1p(math.exp(float(delta[0, t, i] + bias[i])))
            x = float(u[0, t, i])
            h = [math.exp(step * float(A[i, k])) * h[k] + step * x * float(B[0, t, k]) for k in range(n)]
            y = sum(float(C[0, t, k]) * h[k] for k in range(n)) + float(D[i]) * x
            gate = float(z[0, t, i]) / (1 + math.exp(-float(z[0, t, i])))
            assert float(out[0, t, i]) == pytest.approx(y * gate, rel=1e-12, abs=1e-13)
        assert last[0, i].tolist() == pytest.approx(h, rel=1e-12)


def test_constant_input_converges_to_the_geometric_sum():
    a, step = -0.5, 0.2
    one = torch.ones(1, 400, 1, dtype=torch.float64)
    out, _ = scan_reference(
        one, step * one, torch.full((1, 1), a, dtype=torch.float64), one, one, *[None] * 5, False
    )
    assert float(out[0, -1, 0]) == pytest.approx(step / (1 - math.exp(step * a)), rel=1e-12)


def test_ssd_is_the_scan_with_one_decay_a_head():
    b, L, h, p, g, n = 2, 9, 4, 3, 2, 5
    x, z, dt = randn(b, L, h, p, seed=0), randn(b, L, h, p, seed=1), randn(b, L, h, seed=2)
    A, D, bias = -randn(h, seed=3).abs(), randn(h, seed=4), randn(h, seed=5)
    B, C, s0 = randn(b, L, g, n, seed=6), randn(b, L, g, n, seed=7), randn(b, h, p, n, seed=8)
    y, last = ssd_reference(x, dt, A, B, C, D, z, bias, s0, None, None, True, (0.0, math.inf))
    for i in range(h):
        wide = [t.unsqueeze(-1).expand(b, L, p) for t in (dt[:, :, i],)]
        out, state = scan_reference(
            x[:, :, i],
            wide[0],
            A[i].expand(p, n),
            B[:, :, i // 2],
            C[:, :, i // 2],
            D[i].expand(p),
            z[:, :, i],
            bias[i].expand(p),
            s0[:, i],
            None,
            True,
        )
        torch.testing.assert_close(y[:, :, i], out, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(last[:, i], state, rtol=1e-12, atol=1e-12)


def test_ssd_packed_sequences_equal_separate_ones():
    x, dt, A = randn(1, 10, 2, 3, seed=0), randn(1, 10, 2, seed=1).abs(), -randn(2, seed=2).abs()
    B, C = randn(1, 10, 1, 4, seed=3), randn(1, 10, 1, 4, seed=4)
    seq = torch.tensor([[0] * 4 + [1] * 6])
    y, last = ssd_reference(x, dt, A, B, C, None, None, None, None, None, seq, False, (0.0, math.inf))
    parts = [
        ssd_reference(x[:, s], dt[:, s], A, B[:, s], C[:, s], *[None] * 6, False, (0.0, math.inf))
        for s in (slice(0, 4), slice(4, 10))
    ]
    torch.testing.assert_close(y, torch.cat([p[0] for p in parts], 1), rtol=0, atol=0)
    torch.testing.assert_close(last, parts[1][1], rtol=0, atol=0)


def test_ssd_step_limit_holds_after_softplus():
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    y, _ = ssd_reference(
        x, 50 * x[..., 0], -x[0, 0, 0], x, x, *[None] * 6, True, (0.0, 0.25)
    )  # softplus(50) = 50, limited to 0.25
    assert float(y) == 0.25


def test_backward_of_the_oracle_is_linear_in_length():
    def nodes(L):
        u = torch.randn(1, L, 2, requires_grad=True)
        A, B = -torch.ones(2, 2), torch.randn(1, L, 2)
        out, _ = scan_reference(u, u, A, B, B, *[None] * 5, False)
        sizes, todo, seen = 0, [out.grad_fn], set()
        while todo:
            f = todo.pop()
            if f is None or f in seen:
                continue
            seen.add(f)
            sizes += L if "Select" in type(f).__name__ else 1  # a select's gradient has the full length
            todo += [g for g, _ in f.next_functions]
        return sizes

    assert nodes(64) < 2.2 * nodes(32)
