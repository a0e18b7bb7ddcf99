"""The published heuristics as data: conditions over the signal columns under which a document is kept.

A condition is SQL (DuckDB and Polars read it alike). One that is null, because a ratio has no denominator, does not keep:
write `(condition) IS TRUE`. Thresholds are those of the papers as datatrove 0.10 applies them.
"""

from typing import TypedDict

from midtrain_dagster.recipes import selection


class Rule(TypedDict):
    """`name` is the reason that selection gives when `keep` does not hold."""

    name: str
    keep: str
    paper: str


GOPHER = "Rae et al., Scaling Language Models: Gopher, arXiv:2112.11446, table A1 and section A.1.1"
C4 = "Raffel et al., T5, arXiv:1910.10683, section 2.2"
FINEWEB = "Penedo et al., FineWeb, arXiv:2406.17557, section 3.6"
CODEX = "Chen et al., Codex, arXiv:2107.03374, section 3.1"
STACK = "Kocetkov et al., The Stack, arXiv:2211.15533; Li et al., StarCoder, arXiv:2305.06161, section 3"
STACK_V2 = "Lozhkov et al., StarCoder 2 and The Stack v2, arXiv:2402.19173, section 3.1"


def _rules(paper: str, conditions: dict[str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(name=name, keep=keep, paper=paper) for name, keep in conditions.items())


def _gopher_repetition() -> dict[str, str]:
    conditions = {
        "gopher_duplicate_paragraphs": "duplicate_paragraph_ratio <= 0.3",
        "gopher_duplicate_paragraph_characters": "duplicate_paragraph_character_ratio <= 0.2",
        "gopher_duplicate_lines": "duplicate_line_ratio <= 0.3",
        "gopher_duplicate_line_characters": "duplicate_line_character_ratio <= 0.2",
    }
    for n, most in ((2, 0.2), (3, 0.18), (4, 0.16)):
        conditions[f"gopher_top_{n}gram"] = f"top_{n}gram_character_ratio <= {most}"
    for n, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1)):
        conditions[f"gopher_duplicate_{n}gram"] = f"duplicate_{n}gram_character_ratio <= {most}"
    return conditions


RULESETS: dict[str, tuple[Rule, ...]] = {
    "gopher": _rules(
        GOPHER,
        {
            "gopher_word_count": "nonsymbol_words BETWEEN 50 AND 100000",
            "gopher_mean_word_length": "mean_word_length BETWEEN 3 AND 10",
            "gopher_hash_ratio": "hash_word_ratio <= 0.1",
            "gopher_ellipsis_ratio": "ellipsis_word_ratio <= 0.1",
            "gopher_bullet_lines": "bullet_line_ratio <= 0.9",
            "gopher_ellipsis_lines": "ellipsis_line_ratio <= 0.3",
            "gopher_alphabetic_words": "alpha_word_ratio >= 0.8",
            "gopher_stop_words": "stop_words >= 2",
        },
    ),
    "gopher_repetition": _rules(GOPHER, _gopher_repetition()),
    "c4": _rules(
        C4,
        {
            "c4_lorem_ipsum": "c4_lorem_ipsum_lines = 0",
            "c4_curly_bracket": "c4_curly_bracket_lines = 0",
            "c4_sentences": "c4_sentences >= 5",
        },
    ),
    "fineweb": _rules(
        FINEWEB,
        {
            "fineweb_line_punctuation": "terminal_line_ratio >= 0.12",
            "fineweb_short_lines": "short_line_ratio <= 0.67",
            "fineweb_duplicate_lines": "duplicate_nonblank_line_character_ratio <= 0.01",
            "fineweb_newlines": "newline_word_ratio <= 0.3",
        },
    ),
    "stack": _rules(
        CODEX + "; " + STACK,
        {
            "stack_mean_line_length": "mean_line_length <= 100",
            "stack_max_line_length": "max_line_length <= 1000",
            "stack_alphanumeric": "alphanumeric_ratio >= 0.25",
            "stack_xml": "xml_header = 0",
        },
    )
    + _rules(
        STACK_V2,
        {
            "stack_encoded_data": "longest_encoded_run <= 1024 AND longest_encoded_run <= 0.5 * characters",
            "stack_generated": "generated_notice = 0",
        },
    ),
}


def as_rules() -> dict[str, list[selection.Rule]]:
    """The rulesets as selection has them, each for the documents that it was published for: prose rules spare code, code rules prose."""
    return {
        name: [
            selection.Rule(name=rule["name"], keep=f"({rule['keep']}) IS TRUE", where=f"document.format = '{_form(name)}'")
            for rule in rules
        ]
        for name, rules in RULESETS.items()
    }


def _form(ruleset: str) -> str:
    return "code" if ruleset == "stack" else "text"
