"""Attention inside documents: masks over a packed sequence, or each document by itself.

Packed documents cost a full square of scores under a mask. Alone, a document is plain causal attention, which the fast kernels
have a path for, and a sequence costs the sum of its documents' squares: that is `documents`, the way on a CPU. On a GPU
flex-attention skips masked blocks. Imported only inside functions, because it imports torch.
"""

from typing import Any

import torch  # noqa: TID253
from torch import Tensor  # noqa: TID253
from torch.nn.functional import scaled_dot_product_attention as attend  # noqa: TID253

from midtrain_dagster.errors import MidtrainError

DOCUMENTS = "midtrain_documents"
SHORT = 512
"""Tokens of the longest document that attends by plain matrix products."""


def register() -> None:
    """Make `documents` known to transformers. It takes no mask: the runs of tokens come as `runs` (see `runs_of`)."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(DOCUMENTS, document_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(DOCUMENTS, lambda *args, **kwargs: None)


def runs_of(segment: Tensor) -> list[int]:
    """Lengths of the stretches of one document, or of padding, over all rows laid end to end; they sum to segment.numel()."""
    changes = torch.ones_like(segment, dtype=torch.bool)
    changes[:, 1:] = segment[:, 1:] != segment[:, :-1]
    begins = changes.flatten().nonzero().flatten()
    return torch.diff(begins, append=begins.new_tensor([segment.numel()])).tolist()


def document_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float | None = None,
    dropout: float = 0.0, runs: list[int] | None = None, sliding_window: int | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """query (batch, heads, length, d), key and value (batch, key heads, length, d) → (batch, length, heads, d), as
    transformers wants it. Documents of one length go through the kernel together. Raises MidtrainError where the model did not
    hand `runs` on, since its documents would then see each other.
    """
    if runs is None:
        raise MidtrainError(f"{type(module).__name__} was not told where documents begin; set `attention: sdpa` for this model")
    batch, heads, length, _ = query.shape
    groups = heads // key.shape[1]
    flat = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)]  # (batch · length, heads, d)

    def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(documents, tokens, heads, d) each."""
        tokens, mask = q.shape[1], None
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        if q.device.type == "cpu" and q.dtype == torch.bfloat16 and tokens <= SHORT and not dropout:
            return by_products(q, k, v, scaling, sliding_window).transpose(1, 2)
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        if sliding_window is not None and tokens > sliding_window:
            mask = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).tril().triu(1 - sliding_window)
        return attend(q, k, v, mask, dropout, is_causal=mask is None, scale=scaling).transpose(1, 2)

    if len(set(runs)) == 1:
        out = causal(*(tensor.unflatten(0, (len(runs), runs[0])) for tensor in flat)).flatten(0, 1)
    else:
        pieces = zip(*(tensor.split(runs) for tensor in flat), strict=True)
        out = torch.cat([causal(q[None], k[None], v[None])[0] for q, k, v in pieces])
    return out.unflatten(0, (batch, length)), None


def by_products(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """Causal attention of short documents, (documents, heads or key heads, tokens, d) each, as two products around a softmax.

    In bf16 on a CPU three times as fast, forward and backward, as torch's flash kernel at 128 tokens, and half as fast again at
    512; the price is a square of probabilities a head. The sum inside the softmax is in fp32. Heads that share a key go through
    the products as more rows.
    """
    tokens, width = query.shape[-2:]
    hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    if window is not None and tokens > window:
        hidden |= torch.ones(tokens, tokens, dtype=torch.bool).tril(-window)
    mask = torch.zeros(tokens, tokens, dtype=query.dtype).masked_fill_(hidden, float("-inf"))
    k, v = key.flatten(0, 1), value.flatten(0, 1)
    q = query.reshape(len(k), -1, width)
    scores = torch.baddbmm(mask.repeat(q.shape[1] // tokens, 1), q, k.transpose(1, 2), alpha=scaling or width**-0.5)
    return torch.bmm(scores.softmax(dim=-1), v).view_as(query)


def visible(segment: Tensor, i: Tensor, j: Tensor, window: int | None) -> Tensor:
    """Whether position i may look at j of the same row: causal, inside one document, and inside the window where there is one."""
    seen = i >= j
    return seen if window is None else seen & (i - j < window)


def document_mask(segment: Tensor, window: int | None = None) -> Tensor:
    """(batch, 1, length, length) bool: position i may look at j ≤ i of the same segment, fewer than `window` back.

    Padding is segment 0 and looks at padding, so that no row of the softmax is empty.
    """
    place = torch.arange(segment.shape[1], device=segment.device)
    near = visible(segment, place[:, None], place[None, :], window)
    return (segment[:, None, :, None] == segment[:, None, None, :]) & near


def document_block_mask(segment: Tensor, window: int | None = None) -> Any:
    """The same as a BlockMask for flex-attention, which skips the blocks that are wholly masked."""
    from torch.nn.attention.flex_attention import create_block_mask

    def allowed(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return visible(segment, i, j, window) & (segment[b, i] == segment[b, j])

    batch, length = segment.shape
    return create_block_mask(allowed, batch, None, length, length, device=str(segment.device))


def arguments(config: Any, segment: Tensor, dtype: torch.dtype) -> dict[str, Any]:
    """What a model's forward needs so that documents do not see each other: `runs`, or a mask (one a kind of layer, where a
    model has layers that look through a window and layers that look at everything).
    """
    kind = config._attn_implementation
    if kind == DOCUMENTS:
        return {"attention_mask": None, "runs": runs_of(segment)}

    def mask(window: int | None) -> Any:
        if kind == "flex_attention":
            return document_block_mask(segment, window)
        allowed = document_mask(segment, window)
        if kind != "eager":
            return allowed
        # eager attention adds its mask to the scores, where sdpa chooses by it
        return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)

    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or [])  # where it is there, it says which layers have the window
    if "sliding_attention" in layers:
        both = {"full_attention": None, "sliding_attention": window}
        return {"attention_mask": {name: mask(both[name]) for name in sorted(layers & set(both))}}
    return {"attention_mask": mask(None if layers else window)}
