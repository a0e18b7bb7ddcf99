"""The last look before training: packed sequences are decoded and scanned once more for benchmark questions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import dagster as dg
import numpy as np
import polars as pl

from assets.outcome import markdown
from assets.reading import allow_list
from midtrain_dagster.decontaminate.decide import unexcepted
from midtrain_dagster.decontaminate.index import build
from midtrain_dagster.decontaminate.match import MATCHES_SCHEMA, rescan
from midtrain_dagster.mix.tokens import decode
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.sequences import SPAN_COLUMNS, Sequences
from resources.lake import Lake

QUESTIONS: Final = "benchmark_questions"
SCANNED: Final = 1 << 22  # packed tokens that are decoded and scanned at a time


def checks(recipes: list[Recipe]) -> list[dg.AssetChecksDefinition]:
    """What is about to be trained on is scanned once more, as the tokens that training will read."""

    def no_question_left(recipe: Recipe) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=["packed_sequences", recipe.name], name="no_benchmark_question_left", blocking=True)
        def check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
            """No packed sequence holds a benchmark question in its words and their order, but for what the allow-list names."""
            packed = lake.artifacts.current(f"packed_sequences/{recipe.name}")
            base = lake.artifacts.current(f"base_checkpoint/{recipe.name}")
            sequences = Sequences.open(packed.path / "train")
            questions = lake.tables.read(QUESTIONS)
            settings = recipe.decontamination.using(allow_list=allow_list(lake, recipe.decontamination))
            found = pl.DataFrame(schema=MATCHES_SCHEMA)
            if len(questions):
                index = build(questions, settings)
                texts = decoded(sequences, base.path / "model")
                found = unexcepted(pl.concat([found, *(rescan(some, index) for some in texts)]), settings)
            shown = found.select("benchmark", "question_id", "id", "score").head(10)
            return dg.AssetCheckResult(
                passed=not len(found),
                description=LEFT if len(found) else None,
                metadata={
                    "documents scanned": len(np.unique(sequences.spans[:, SPAN_COLUMNS.index("document")])),
                    "tokens scanned": int(sequences.spans[:, SPAN_COLUMNS.index("length")].sum()),
                    "questions looked for": len(questions),
                    "questions found": found["question_id"].n_unique(),
                    "found": markdown(shown),
                },
            )

        return check

    return [no_question_left(recipe) for recipe in recipes]


LEFT = (
    "Training would read benchmark questions. Lower selection.contamination.score, or where a match is false, "
    "write `id<TAB>question_id` into the recipe's decontamination.allow_list."
)


def decoded(sequences: Sequences, tokenizer: Path) -> Iterator[pl.DataFrame]:
    """What training will read of each document, and each time it does: `id`, `text`, some SCANNED tokens at a time.

    Pieces of one copy are put together again, for a question may lie across the edge of two sequences.
    """
    spans = pl.DataFrame(np.asarray(sequences.spans), schema=list(SPAN_COLUMNS)).sort("document", "document_offset", "sequence")
    copies = spans.with_columns(copy=pl.int_range(pl.len()).over("document", "document_offset"))
    parts = copies.group_by("document", "copy", maintain_order=True).agg("sequence", "start", "length")
    ids = pl.read_parquet(sequences.path / "documents.parquet", columns=["id"])["id"]
    block = (pl.col("length").list.sum().cum_sum() // SCANNED).alias("block")
    for some in parts.with_columns(block).partition_by("block", maintain_order=True):
        tokens = [
            [token for s, a, n in zip(*places, strict=True) for token in sequences.tokens[s, a : a + n].tolist()]
            for places in some.select("sequence", "start", "length").iter_rows()
        ]
        texts = pl.Series("text", decode(tokens, tokenizer), dtype=pl.String)
        yield pl.DataFrame([ids[some["document"].to_list()].alias("id"), texts])
