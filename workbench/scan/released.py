"""The kernels of the mamba-ssm package, used only where they are installed and pass the check of `selfcheck`.

They need CUDA, are built against one exact torch, and lack some of what ours take: an initial state and the gradient
through the last state in the selective scan, a decay apart from the step in both.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unable(op: str, args: tuple) -> str | None:
    """Why the package, where it is installed, cannot take these arguments, or None."""
    if args[0].device.type != "cuda":
        return f"mamba_ssm needs a CUDA device, the tensors are on {args[0].device.type}"
    if args[0].dtype == torch.float64:
        return "mamba_ssm has no float64"
    if op == "selective_scan":
        if args[8] is not None or args[9] is not None:
            return "mamba_ssm's selective scan takes neither an initial state nor a decay apart from the step"
    elif args[9] is not None:
        return "mamba_ssm's ssd takes no decay apart from the step"
    return None


def scan_mamba_ssm(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay, softplus):
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def turned(x: Tensor | None) -> Tensor | None:
        return x if x is None or x.dim() == 2 else x.transpose(1, 2).contiguous()

    wide = [x if x is None else x.float() for x in (A, D, delta_bias)]
    like = [x if x is None else turned(x.to(u.dtype)) for x in (delta, B, C, z)]
    out, state = selective_scan_fn(
        turned(u), like[0], wide[0], like[1], like[2], wide[1], like[3], wide[2], softplus, True
    )
    return out.transpose(1, 2), state.float()


def ssd_mamba_ssm(
    x, dt, A, B, C, D, z, dt_bias, initial_state, log_decay, seq_idx, softplus, dt_limit, chunk
):
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    y, state = mamba_chunk_scan_combined(
        x.contiguous(),
        dt.contiguous(),
        A.float(),
        B.to(x.dtype).contiguous(),
        C.to(x.dtype).contiguous(),
        chunk,
        D=None if D is None else D.float(),
        z=None if z is None else z.to(x.dtype).contiguous(),
        dt_bias=None if dt_bias is None else dt_bias.float(),
        initial_states=initial_state,
        seq_idx=None if seq_idx is None else seq_idx.int(),
        dt_softplus=softplus,
        dt_limit=dt_limit,
        return_final_states=True,
    )
    return y, state.float()
