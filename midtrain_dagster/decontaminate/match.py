"""Documents against questions: evidence and a score for every pair that may be a copy, by any of six methods."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from midtrain_dagster.decontaminate import behaviour, scores
from midtrain_dagster.decontaminate.candidates import Regions, by_ngrams, by_votes, joined
from midtrain_dagster.decontaminate.embedding import Encoder, nearest_questions
from midtrain_dagster.decontaminate.evidence import framed, measure, ngram_overlap, verbatim
from midtrain_dagster.decontaminate.index import Index
from midtrain_dagster.decontaminate.languages import Foreign, foreign_documents
from midtrain_dagster.decontaminate.passages import passages
from midtrain_dagster.decontaminate.resemblance import resemblances
from midtrain_dagster.decontaminate.shortlist import Shortlist, with_anything, with_ngrams
from midtrain_dagster.decontaminate.translated import translated
from midtrain_dagster.decontaminate.whole import same_examples, short_lines
from midtrain_dagster.decontaminate.words import Words, split
from midtrain_dagster.documents import text_hash
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress
from midtrain_dagster.recipes.decontamination import METHODS, Method

SLICE_BYTES = 32 << 20
WHOLE = 0.8  # of a question's weight, in order: that much of it in a packed text is the question
WORTH_RUNNING = 0.3  # score of a pair of functions from which on what they return is looked at
LEAST_OVERLAP = 0.3  # of a unit's weight anywhere in a region, before the cascade aligns it
SEED_WORDS: dict[Method, int] = {"ngram": 8, "phi4": 7, "idf": 5, "hybrid": 8, "cascade": 6}

MATCHES_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "text_hash": pl.String,
        "question_id": pl.String,
        "benchmark": pl.String,
        "method": pl.String,
        "score": pl.Float64,  # 0 to 1; the method's threshold decides
        "question_part": pl.String,  # what was found: question, or question+choices
        "start": pl.Int64,  # characters of the document's text
        "end": pl.Int64,
        "ngram_hits": pl.Int64,  # distinct n-grams shared (n: 8; phi4 7; idf 5; cascade 6)
        "longest_run": pl.Int64,  # words shared without a break
        "lcs_words": pl.Int64,  # words shared in order, on the best local alignment
        "lcs_ratio": pl.Float64,
        "order_overlap": pl.Float64,
        "question_overlap": pl.Float64,
        "answer_overlap": pl.Float64,
        "choices_overlap": pl.Float64,
        "passage_overlap": pl.Float64,
        "ngram_overlap": pl.Float64,  # idf only
        "verbatim": pl.Boolean,  # cascade: the question stands there character for character, white space aside
        "framed": pl.Boolean,  # cascade: the span stands on lines of its own
        "cosine": pl.Float64,  # embedding, and cascade with an encoder
        "alike": pl.Float64,  # cascade, a short passage as a whole: shared weight over the geometric mean of both
        "lead": pl.Float64,  # of `alike` over the next question's
        "cosine_lead": pl.Float64,
        "numbers_kept": pl.Float64,  # share of the question's numbers, by weight, that the passage has
        "examples_kept": pl.Float64,  # share of a programming task's worked examples
        "behaves": pl.Float64,  # a function of the passage, run beside a programming task's solution: equal outcomes beyond chance
        "judged": pl.Boolean,  # by a judge, after matching (judge.py); null: not asked, or no clear answer
        "question_words": pl.Int64,
        "question_weight": pl.Float64,
        "numbers_changed": pl.Int64,
        "names_changed": pl.Int64,
        "slots_changed": pl.Int64,
        "frame_overlap": pl.Float64,  # as order_overlap, of what is left when changed numbers and names are set aside
        "tail_overlap": pl.Float64,  # weight of the question's last words in or just after the span
        "placed_words": pl.Int64,
        "placed_overlap": pl.Float64,  # weight of the question's words that keep their distance from each other
        "placed_run": pl.Int64,
    }
)


def match(
    documents: pl.DataFrame,
    index: Index,
    method: Method | None = None,
    encoder: Encoder | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """MATCHES_SCHEMA, sorted by id, question and place: every pair with a score worth keeping.

    A document's matches depend on nothing but itself, the questions and the settings. `documents` has `id`, `text` and may
    have `text_hash`. Raises MidtrainError when the method needs an encoder and none is given.
    """
    chosen: Method = method or index.settings.method
    if chosen not in METHODS:
        raise MidtrainError(f"decontaminate: there is no method {chosen!r}; use one of {', '.join(METHODS)}")
    if chosen == "embedding" and encoder is None:
        raise MidtrainError("decontaminate: the method `embedding` needs an encoder; name an embedding model, or use `cascade`")
    found = []
    for part in _slices(documents):
        foreign = foreign_documents(part["text"], encoder) if chosen == "cascade" else None
        listed = _shortlist(part["text"], index, chosen, foreign)
        few = part[listed.rows]
        words = split(few["text"])
        among = foreign.among(listed.rows) if foreign else None
        evidence = _evidence(few["text"], words, listed.votes, index, chosen, encoder, among)
        found.append(_finished(few, words, index, chosen, evidence))
        if progress is not None:
            progress.advance(len(part))
    return (
        pl.concat(found).sort("id", "question_id", "start", "question_part") if found else pl.DataFrame(schema=MATCHES_SCHEMA)
    )


def rescan(texts: pl.DataFrame, index: Index) -> pl.DataFrame:
    """Matches of texts (`id`, `text`), such as decoded packed sequences, that hold a question in its words and their order.

    The last check before training, whatever method selected the documents: a run of words as GPT-3's rule demands it, and by
    weight WHOLE of the question around it. The run alone would stop every large training, for common phrases have it too.
    """
    return match(texts, index, "ngram").filter((pl.col("score") >= 1.0) & (pl.col("order_overlap") >= WHOLE))


def _slices(documents: pl.DataFrame) -> Iterator[pl.DataFrame]:
    size = documents["text"].str.len_bytes().fill_null(0).cum_sum().to_numpy()
    begin = 0
    while begin < len(documents):
        before = size[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(size, before + SLICE_BYTES, "right")))
        yield documents[begin:end]
        begin = end


def _shortlist(texts: pl.Series, index: Index, method: Method, foreign: Foreign | None) -> Shortlist:
    if method == "embedding":
        return Shortlist(np.arange(len(texts)), np.empty((0, 5), np.int32))
    if method == "cascade":
        return with_anything(texts, index, SEED_WORDS[method], foreign.rows if foreign else None)
    return with_ngrams(texts, index, SEED_WORDS[method])


def _evidence(
    texts: pl.Series,
    words: Words,
    votes: np.ndarray,
    index: Index,
    method: Method,
    encoder: Encoder | None,
    foreign: Foreign | None,
) -> pl.DataFrame:
    """Evidence with `score`, only rows worth keeping."""
    settings = index.settings
    threshold = getattr(settings.thresholds, method)
    floor = settings.keep_above * threshold
    if method == "embedding":
        assert encoder is not None
        evidence = _nearest(words, index, encoder, floor).with_columns(score=pl.col("cosine"))
    elif method == "cascade":
        evidence = _cascade(texts, words, votes, index, encoder, foreign)
    else:
        evidence = measure(words, by_ngrams(words, index, SEED_WORDS[method]), index)
        evidence = _with_lengths(evidence, words, index)
        if method == "idf":
            evidence = evidence.with_columns(ngram_overlap=pl.Series(ngram_overlap(words, evidence, index, SEED_WORDS["idf"])))
        score = {
            "ngram": scores.ngram(settings.ngram_rule),
            "phi4": scores.phi4(),
            "idf": scores.idf(threshold) if method == "idf" else None,
            "hybrid": scores.hybrid(settings.qwen_rule),
        }[method]
        assert score is not None
        evidence = evidence.with_columns(score=score)
    return evidence.filter(pl.col("score") >= floor)


def _with_lengths(evidence: pl.DataFrame, words: Words, index: Index) -> pl.DataFrame:
    return evidence.with_columns(
        required_run=pl.Series(index.required_run[evidence["unit"].to_numpy()], dtype=pl.Int64),
        document_words=pl.Series(np.diff(words.offsets)[evidence["row"].to_numpy()], dtype=pl.Int64),
    )


def _cascade(
    texts: pl.Series, words: Words, votes: np.ndarray, index: Index, encoder: Encoder | None, foreign: Foreign | None
) -> pl.DataFrame:
    """Candidates from 6-grams and votes of rare words, aligned and measured; then what resembles a question as a whole."""
    regions = joined(by_ngrams(words, index, SEED_WORDS["cascade"]), by_votes(words, index, votes))
    evidence = measure(words, regions, index, LEAST_OVERLAP)
    evidence = evidence.with_columns(verbatim=verbatim(words, evidence, index), framed=framed(words, evidence))
    unit = evidence["unit"].to_numpy()
    evidence = evidence.with_columns(code=pl.Series(index.is_code[unit]), spelled=pl.Series(index.spelled[unit]))
    evidence = evidence.with_columns(score=scores.cascade())
    worth = pl.col("code") & ~pl.col("verbatim") & (pl.col("score") >= WORTH_RUNNING) & (pl.col("order_overlap") < WHOLE)
    evidence = evidence.with_columns(behaves=behaviour.of_spans(evidence, worth, words, index))
    evidence = evidence.with_columns(score=scores.behaving(pl.col("score"), pl.lit(None, pl.Float64)))
    return _stronger(evidence, _wholes(texts, words, votes, index, encoder, foreign))


def _wholes(
    texts: pl.Series, words: Words, votes: np.ndarray, index: Index, encoder: Encoder | None, foreign: Foreign | None
) -> pl.DataFrame:
    """Evidence of passages as wholes: reworded and translated questions, short questions as lines, tasks by their examples."""
    lines = short_lines(texts, words, index).with_columns(score=pl.lit(1.0), verbatim=pl.lit(True))
    tasks = same_examples(texts, words, index).with_columns(score=scores.examples())
    found = [lines, tasks]
    abroad = translated(words, index, encoder, foreign) if foreign is not None and encoder is not None else None
    for short in (passages(words, index, votes), abroad):
        if short is None:
            continue
        alike = resemblances(short, words, index, encoder, foreign)
        alike = alike.with_columns(telling_weight=pl.Series(index.telling_weight[alike["unit"].to_numpy()], dtype=pl.Float64))
        found.append(alike.with_columns(score=scores.resemblance(encoder is not None)))
    whole = pl.concat(found, how="diagonal").sort("row", "unit", "score", descending=[False, False, True])
    whole = whole.unique(["row", "unit"], keep="first", maintain_order=True)
    keys = ("row", "unit", "first_word", "end_word")
    row, unit, first, end = (whole[k].to_numpy() for k in keys)
    regions = Regions(row, unit, first, end, np.zeros(len(whole), np.int64))
    measured = measure(words, regions, index, keep_all=True).drop(keys)
    told = [pl.lit(None, pl.Float64).alias("behaves")] if "behaves" not in whole.columns else []  # no passage was compared
    whole = pl.concat(
        [whole.with_columns(told), measured.drop([c for c in measured.columns if c in whole.columns])], how="horizontal"
    )
    certain = pl.col("verbatim").fill_null(False) | pl.col("behaves").is_not_null()
    return whole.with_columns(score=pl.when(certain).then("score").otherwise(scores.asking(pl.col("score"))))


def _stronger(one: pl.DataFrame, two: pl.DataFrame) -> pl.DataFrame:
    """Both, and of a document and question that both have, the one's rows unless the other's score is higher."""
    pair = ["row", "unit"]
    best = one.group_by(pair).agg(pl.col("score").max().alias("other"))
    better = two.join(best, on=pair, how="left", maintain_order="left").filter(
        pl.col("score") > pl.col("other").fill_null(-1.0)
    )
    rest = one.join(better.select(pair), on=pair, how="anti", maintain_order="left")
    return pl.concat([rest, better.drop("other")], how="diagonal_relaxed")


def _nearest(words: Words, index: Index, encoder: Encoder, floor: float) -> pl.DataFrame:
    near = nearest_questions(words, index, encoder, floor)
    regions = Regions(near.rows, near.units, near.first, near.end, np.zeros(len(near.rows), np.int64))
    return measure(words, regions, index, keep_all=True).with_columns(
        first_word=pl.Series(near.first, dtype=pl.Int64),
        end_word=pl.Series(near.end, dtype=pl.Int64),
        cosine=pl.Series(near.cosine, dtype=pl.Float64),
    )


def _hashes(texts: pl.Series, wanted: set[int]) -> pl.Series:
    """The hashes of some texts; null for the others, which nobody asks for."""
    return pl.Series([text_hash(text or "") if i in wanted else None for i, text in enumerate(texts)], dtype=pl.String)


def _finished(part: pl.DataFrame, words: Words, index: Index, method: Method, evidence: pl.DataFrame) -> pl.DataFrame:
    rows, units = evidence["row"].to_list(), evidence["unit"].to_list()
    question = index.questions[index.unit_question[np.array(units, np.int64)].tolist()]
    spans = [words.characters(r, a, b) for r, a, b in evidence.select("row", "first_word", "end_word").iter_rows()]
    hashes = part["text_hash"] if "text_hash" in part.columns else _hashes(part["text"], set(rows))
    frame = evidence.with_columns(
        part["id"][rows].alias("id"),
        hashes[rows].alias("text_hash"),
        question["question_id"],
        question["benchmark"],
        pl.lit(method).alias("method"),
        pl.Series("question_part", [index.unit_part[u] for u in units], dtype=pl.String),
        pl.Series("start", [s[0] for s in spans], dtype=pl.Int64),
        pl.Series("end", [s[1] for s in spans], dtype=pl.Int64),
        (pl.col("numbers_changed") + pl.col("names_changed")).alias("slots_changed"),
    )
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in MATCHES_SCHEMA.items() if name not in frame.columns]
    return frame.with_columns(missing).select([pl.col(n).cast(t) for n, t in MATCHES_SCHEMA.items()])
