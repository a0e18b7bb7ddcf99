"""Bits per byte of documents: how many bits a model needs for a byte of text it has not seen.

Unlike loss per token it does not depend on the tokenizer, so models compare (2101.00027, section 3.1). It is the signal that short
runs of small models do have.
"""

from collections.abc import Sequence
from math import log
from pathlib import Path

import numpy as np
import polars as pl

from midtrain_dagster.evaluate.verdicts import USUAL, Judging, resampled
from midtrain_dagster.progress import Progress

DOCUMENT_SCHEMA = pl.Schema({"id": pl.String, "domain": pl.String, "bits": pl.Float64, "bytes": pl.Int64, "tokens": pl.Int64})
DOMAIN_SCHEMA = pl.Schema(
    {
        "domain": pl.String,
        "documents": pl.UInt32,
        "bytes": pl.Int64,
        "bits_per_byte": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
)


def bits_per_byte(
    model: Path | str,
    documents: pl.DataFrame,
    window: int = 1024,
    batch_tokens: int = 4096,
    precision: str = "auto",
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Bits and UTF-8 bytes of each document (columns id, text, domain) as DOCUMENT_SCHEMA, in input order.

    The first token is predicted from the tokenizer's begin or end of text. A document over `window` tokens is cut into
    pieces of that many, each of which sees the last half of the one before; so every token is scored once, with at least half
    a window of context where there is that much. An empty document has 0 bits and 0 bytes.
    """
    import torch

    from midtrain_dagster.evaluate.language_model import load

    network, tokenizer = load(model, precision)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    limit = getattr(network.config, "max_position_embeddings", window)
    texts = documents["text"].to_list()
    tokens = [[start, *tokenizer.encode(text, add_special_tokens=False)] for text in texts]
    pieces = [(number, *piece) for number, some in enumerate(tokens) for piece in _pieces(len(some), min(window, limit))]
    bits = np.zeros(len(texts))
    with torch.inference_mode():
        for batch in _batches(pieces, batch_tokens):
            longest = max(stop - begin for _, begin, _, stop in batch)
            rows = torch.full((len(batch), longest), start)
            for at, (number, begin, _, stop) in enumerate(batch):
                rows[at, : stop - begin] = torch.tensor(tokens[number][begin:stop])
            logits = network(input_ids=rows[:, :-1].to(network.device), use_cache=False).logits
            for at, (number, begin, first, stop) in enumerate(batch):
                some = logits[at, first - 1 - begin : stop - 1 - begin].float()
                target = torch.tensor(tokens[number][first:stop], device=some.device)
                nats = torch.nn.functional.cross_entropy(some, target, reduction="sum")
                bits[number] += float(nats) / log(2)
                if progress is not None:
                    progress.advance(stop - first)
    return pl.DataFrame(
        {
            "id": documents["id"],
            "domain": documents["domain"],
            "bits": bits,
            "bytes": [len(text.encode()) for text in texts],
            "tokens": [len(some) - 1 for some in tokens],
        },
        schema=DOCUMENT_SCHEMA,
    )


def _pieces(length: int, window: int) -> list[tuple[int, int, int]]:
    """(begin, first scored, stop) of each pass over `length` tokens, the first of which is given: all others are scored once."""
    if length < 2:
        return []
    pieces = [(0, 1, min(length, window))]
    while pieces[-1][2] < length:
        first = pieces[-1][2]
        begin = first - window // 2
        pieces.append((begin, first, min(length, begin + window)))
    return pieces


def _batches(pieces: Sequence[tuple[int, int, int, int]], budget: int) -> list[list[tuple[int, int, int, int]]]:
    """Pieces of like length together, so that little is padded."""
    batches: list[list[tuple[int, int, int, int]]] = []
    for piece in sorted(pieces, key=lambda p: (p[1] - p[3], p[0], p[1])):
        length = batches[-1][0][3] - batches[-1][0][1] if batches else 0
        if batches and length * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(piece)
        else:
            batches.append([piece])
    return batches


def by_domain(measured: pl.DataFrame, judging: Judging = USUAL) -> pl.DataFrame:
    """Bits per byte of each domain as DOMAIN_SCHEMA, with a bootstrap interval over its documents; null where there is no text."""
    rows = []
    for domain in measured["domain"].unique().sort():
        some = measured.filter(pl.col("domain").eq_missing(domain))
        bits, size = sides = some.select("bits", pl.col("bytes").cast(pl.Float64)).to_numpy().T
        ratio, low, high = None, None, None
        if size.sum() > 0:
            above, under = resampled(np.random.default_rng(judging.seed), sides, judging.resamples)
            ratio, (low, high) = bits.sum() / size.sum(), judging.interval(above[under > 0] / under[under > 0])
        rows.append((domain, some.height, int(size.sum()), ratio, low, high))
    return pl.DataFrame(rows, schema=DOMAIN_SCHEMA, orient="row")
