"""A stand-in for the kernel of torch.nn.attention.varlen on machines without a GPU: its documentation, row by row."""

import numpy as np
import torch

KERNEL = "torch.nn.attention.varlen.varlen_attn"


def documented(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    """(T_q, heads, D): causal to the bottom right, so that the last query of a row sees its last key."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert (max_q, max_k) == (int(cu_seq_q.diff().max()), int(cu_seq_k.diff().max()))
    assert enable_gqa or query.shape[1] == key.shape[1]
    left, right = window_size
    assert right == 0
    shared, outputs = query.shape[1] // key.shape[1], []
    rows = (np.split(np.arange(len(part)), ends[1:-1]) for part, ends in ((query, cu_seq_q), (key, cu_seq_k)))
    for q, k in zip(*rows, strict=True):
        keys, values = (part[k].repeat_interleave(shared, dim=1) for part in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[q], keys) * (query.shape[2] ** -0.5 if scale is None else scale)
        at, seen = (torch.arange(len(each), device=query.device) for each in (q, k))
        at = at[:, None] + len(k) - len(q)
        visible = (seen <= at) & ((seen >= at - left) if left >= 0 else True)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~visible, -torch.inf).softmax(-1), values))
    return torch.cat(outputs)
