"""From evidence to a score in [0, 1], one expression a method: each is a column, so a person can see what made it."""

import polars as pl

from midtrain_dagster.decontaminate import behaviour

SHORT_TOKENS, LONG_TOKENS = 20, 50  # decon: the required score falls linearly between them
TELLING = 2.2  # in words as rare as can be
FRAME = 0.8
SHARED_START, ASKED = 12, 0.5  # words in a row; weight of what the question asks that must be there too
SPELLED_RUN = 24  # letters in a row, where letters are words: every page has all of them, in any order
LEAST_LCS = 8
QWEN_LCS = 13
REWORDED = 1.42
EXAMPLES = 0.6
PHRASE = 0.7
TRANSLATED = (
    1.7  # in words as rare as can be, each worth the bits that choose one question: 0.7 of them make chance one in 1,000
)
CLOSE, AHEAD = 0.8, 0.1  # of a translation, on the encoder's own scale: its nearness, and its lead over the next question
SAME_SUBJECT = 0.5  # on that scale: below it the same numbers are another text's, as tables and manuals have many
TRANSLATION = 0.85  # the most that meaning alone scores, as a judge may be asked about it
CODE = 0.2  # two docstrings without names and examples are less alike than two whole questions

run, hits, words = pl.col("longest_run"), pl.col("ngram_hits"), pl.col("question_words")
order, overlap, weight = pl.col("order_overlap"), pl.col("question_overlap"), pl.col("question_weight")
answer, choices, passage = pl.col("answer_overlap"), pl.col("choices_overlap"), pl.col("passage_overlap")


def ngram(rule: str) -> pl.Expr:
    """GPT-3 (2005.14165): longest shared run over the benchmark's n. Llama-3 (2407.21783): share of words in shared 8-grams."""
    if rule == "gpt3":
        return (run / pl.col("required_run")).clip(0, 1)
    return pl.when(hits > 0).then(((hits + 7) / words).clip(0, 1)).otherwise(0.0)


def phi4() -> pl.Expr:
    """phi-4 (2412.08905): any shared 13-gram scores 1, else the 7-gram ratio over the shorter of the two."""
    ratio = (hits / (pl.min_horizontal(words, pl.col("document_words")) - 6).clip(1)).clip(0, 1)
    return pl.when(run >= 13).then(1.0).otherwise(ratio)


def idf(threshold: float) -> pl.Expr:
    """allenai/decon: weighted question, answer and passage overlap; shorter questions must score more.

    The question's weight is .7 with answer and passage, .75 with an answer, .85 with a passage, 1 alone; below 20
    n-grams its confidence .5 + .5·n/20 moves weight to the others. The result is score · T / required, so that T decides.
    """
    n, o = (words - 4).clip(1), pl.col("ngram_overlap")
    has_a, has_p = answer.is_not_null(), passage.is_not_null()
    base = pl.when(has_a & has_p).then(0.7).when(has_a).then(0.75).when(has_p).then(0.85).otherwise(1.0)
    confidence = pl.when(n < 20).then(0.5 + 0.5 * n / 20).otherwise(1.0)
    w_q = pl.when(has_a | has_p).then(base * confidence).otherwise(1.0)
    w_a = pl.when(has_a & has_p).then(0.2 + base * (1 - confidence) / 2).when(has_a).then(1 - w_q).otherwise(0.0)
    score = w_q * o + w_a * answer.fill_null(0.0) + (1 - w_q - w_a).clip(0) * passage.fill_null(0.0)
    share = ((pl.col("question_words") - SHORT_TOKENS) / (LONG_TOKENS - SHORT_TOKENS)).clip(0, 1)
    required = 1 - (1 - threshold) * share
    return pl.when(score >= 0.999).then(1.0).otherwise(score * threshold / required).clip(0, 1)


def hybrid(qwen: bool) -> pl.Expr:
    """Qwen2.5 (2412.15115): common words in order over the shorter of question and document; 13 of them if `qwen`."""
    least = pl.lit(QWEN_LCS) if qwen else pl.min_horizontal(pl.lit(LEAST_LCS), words)
    return pl.when(pl.col("lcs_words") >= least).then(pl.col("lcs_ratio").clip(0, 1)).otherwise(0.0)


def cascade() -> pl.Expr:
    """Ours: how much of the question is there, in what order, with which numbers, beside which answer and options.

    `text` is the mean of bag and order overlap. Few and common words prove little, so `needed` rises as the
    question's weight falls, and a question of less than TELLING rare words' worth counts only with its answer or options
    beside it, or character for character (`verbatim`). What shares a passage or an instruction with a question, and not what
    is asked at its end, is another question. Numbers and names that changed make a template's other instance, a near miss, unless nearly all of the
    frame around them stands in its place (a rewritten question). What words cannot show is `resemblance`'s part.
    """
    beside = pl.max_horizontal(answer.fill_null(0.0), choices.fill_null(0.0))
    changed = pl.when(pl.col("numbers") > 0).then(pl.col("numbers_changed") / pl.col("numbers")).otherwise(0.0)
    frame = pl.col("frame_overlap")
    rewritten = (frame >= FRAME) & (pl.col("lcs_words") >= 8)
    text = 0.5 * (order + overlap)
    text = pl.when(rewritten).then(pl.max_horizontal(text, 0.85 * frame)).otherwise(text - 0.2 * changed)
    text = text + pl.when(overlap >= 0.5).then(0.08 * beside).otherwise(0.0)
    needed = 0.48 + 0.40 * (1 - (weight - 2) / 10).clip(0, 1)
    lexical = (0.5 * text / needed).clip(0, 1)
    whole = (run >= words) & (words >= SHARED_START)  # as it stands, but for signs: a list's, or another notation's
    verbatim = (pl.col("verbatim") & ((weight >= TELLING / 2) | (beside >= 0.8))) | whole
    telling = (pl.col("telling_weight") >= TELLING) | ((beside >= 0.8) & (pl.col("numbers") == 0))
    lexical = pl.when(verbatim).then(1.0).when(telling).then(lexical).otherwise(pl.min_horizontal(lexical, 0.49))
    lexical = asking(lexical)
    lexical = pl.when(pl.col("spelled") & ~verbatim & (run < SPELLED_RUN)).then(0.0).otherwise(lexical)
    common = pl.col("lcs_words")
    phrase = (common - run <= 1) & (common / words < PHRASE) & (words < 40) & ~verbatim
    lexical = pl.when(phrase).then(pl.min_horizontal(lexical, 0.49)).otherwise(lexical)
    return (
        pl.when(_scattered() & telling & ~pl.col("spelled"))
        .then(pl.max_horizontal(lexical, 0.5 + 0.3 * order))
        .otherwise(lexical)
        .clip(0, 1)
    )


def asking(score: pl.Expr) -> pl.Expr:
    """A score, for what has a question's beginning word for word: who does not ask the same at its end has another question."""
    shared_start = (run >= SHARED_START) & (pl.col("tail_overlap") < ASKED) & (words >= 2 * SHARED_START)
    return pl.when(shared_start).then(pl.min_horizontal(score, 0.49)).otherwise(score)


def _scattered() -> pl.Expr:
    """A copy with words exchanged one for one: what is left keeps its places, in several runs.

    Of a question with 45 of 100 words exchanged half the weight is left. Other texts share as much of a short question, but as one name
    or phrase (one run), or with other distances between the words. Inside a paragraph more is asked for than on lines of its own.
    """
    common, share, mass = pl.col("placed_words"), pl.col("placed_words") / words, pl.col("placed_overlap") * weight
    apart = common - pl.col("placed_run")
    alone = (pl.col("placed_overlap") >= 0.34) & (mass >= 1.9) & (share >= 0.36) & (apart >= 2) & (common >= 5)
    inside = (pl.col("placed_overlap") >= 0.38) & (mass >= 2.6) & (share >= 0.42) & (apart >= 4)
    return ((pl.col("framed") & alone) | inside) & (apart >= 0.35 * common) & (overlap >= 0.4)


def resemblance(encoded: bool) -> pl.Expr:
    """A passage as a whole: .5 where cosine, shared words, the lead over the next question and the numbers add up to REWORDED.

    The weights are those of a logistic regression on reworded questions, other questions of the same sets and clean paragraphs
    (docs/decontamination.md), rounded. Numbers that agree speak for a rewording, others for another problem; of a programming
    task they say little, for its examples may be others. Without an encoder a passage counts only when it leads every other
    question clearly by its words and has the question's numbers, and no others. Of a translation the
    numbers and names are left: as much of them as ever tells one question of some 20,000 from chance (TRANSLATED); and its
    meaning, where the encoder reads its language (`translation`).
    """
    kept, own = pl.col("numbers_kept"), pl.col("numbers_own").fill_null(pl.col("numbers_kept"))
    agreed = 0.6 * kept + 0.4 * own
    agreed = pl.when(pl.col("number_count") >= 2).then(agreed).otherwise(agreed.clip(0.3, 0.8))
    numbers = pl.when(kept.is_null()).then(pl.when(pl.col("numbers_own").is_null()).then(0.7).otherwise(0.5)).otherwise(agreed)
    numbers = pl.when("code").then(numbers.clip(0.7, 1)).otherwise(numbers)
    lead, telling = pl.col("lead"), pl.col("telling_weight") >= TELLING / 2
    if encoded:
        leads = pl.col("cosine_lead").clip(-0.1, 0.25) + lead.clip(-0.1, 0.25)
        code = pl.when("code").then(CODE).otherwise(0.0)
        total = pl.col("cosine") + 0.5 * pl.col("alike") + 0.5 * leads + 0.3 * numbers + code
        worded = (0.5 + (total - REWORDED)).clip(0, 1)
    else:
        sure = (pl.col("number_count") >= 3) & (kept >= 0.7) & (own >= 0.7) & (pl.col("alike") >= 0.36) & (lead >= 0.2)
        worded = pl.when(sure).then(0.5 + 0.5 * pl.col("alike")).otherwise(0.0)
    worded = pl.when(telling).then(worded).otherwise(0.0)
    kept_all = (pl.col("number_count") >= 3) & (pl.min_horizontal(kept, own) >= 0.75) & (pl.col("shared_weight") >= TRANSLATED)
    kept_all = kept_all & (pl.col("translation").is_null() | (pl.col("translation") >= SAME_SUBJECT))
    worded = (
        pl.when(pl.col("foreign") & ~pl.col("code") & kept_all)
        .then(pl.max_horizontal(worded, 0.5 + 0.2 * kept))
        .otherwise(worded)
    )
    worded = pl.when(_translated()).then(pl.max_horizontal(worded, _meaning())).otherwise(worded)
    return behaving(worded, pl.col("cosine"))


def _translated() -> pl.Expr:
    """A foreign passage as near to the question as translations are, nearer than to any other, and with no other numbers.

    Numbers are in conflict where of two and more of the question's less than half are there, and they are less than half of the
    passage's: some may be written as words, and a solution beside the question has numbers of its own.
    """
    kept = pl.col("numbers_kept").fill_null(1.0)
    conflict = (pl.col("number_count") >= 2) & (pl.max_horizontal(kept, pl.col("numbers_own").fill_null(0.0)) < 0.5)
    near = (pl.col("translation") >= CLOSE) & (pl.col("translation_lead") >= AHEAD)
    return near.fill_null(False) & (pl.col("telling_weight") >= TELLING) & ~pl.col("code") & ~conflict


def _meaning() -> pl.Expr:
    return 0.5 + (TRANSLATION - 0.5) * ((pl.col("translation") - CLOSE) / (1 - CLOSE)).clip(0, 1)


def behaving(score: pl.Expr, cosine: pl.Expr) -> pl.Expr:
    """A score, for two functions that were run: what returns the same is the same, and what does not is another task. Functions of
    which other things are said (by `cosine`; null: not compared) must agree in nearly everything: small ones do half of what others do.
    """
    agrees, far = pl.col("behaves"), (cosine < behaviour.NEAR_SUBJECT).fill_null(False)
    same = pl.when(agrees >= pl.when(far).then(behaviour.SURE).otherwise(behaviour.SAME)).then(0.5 + 0.5 * agrees)
    another = agrees < pl.when(far).then(behaviour.SURE).otherwise(behaviour.OTHER)
    return same.when(another).then(pl.min_horizontal(score, 0.49)).otherwise(score)


def examples() -> pl.Expr:
    """A programming task by its worked examples: .5 at EXAMPLES of them."""
    return (0.5 * pl.col("examples_kept") / EXAMPLES).clip(0, 1)
