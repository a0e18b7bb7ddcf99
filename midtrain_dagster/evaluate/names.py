"""Which benchmarks a name stands for: those of the catalog, other names for them, parts of one, and groups of several."""

import re
from difflib import get_close_matches

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.catalog import BBH, CATALOG, MATH, MMLU, Benchmark

ALIASES = {
    "nq": "nq_open",
    "natural_questions": "nq_open",
    "naturalquestions": "nq_open",
    "trivia_qa": "triviaqa",
    "arc_e": "arc_easy",
    "arc_c": "arc_challenge",
    "winogrande_xl": "winogrande",
    "big_bench_hard": "bbh",
    "bbh_cot_fewshot": "bbh",
    "hendrycks_math": "math",
    "human_eval": "humaneval",
    "infilling": "humaneval_infilling",
    "humaneval_fim": "humaneval_infilling",
    "humaneval_single_line_infilling": "humaneval_infilling",
    "human_eval_fix": "humanevalfix",
    "humaneval_fix": "humanevalfix",
    "code_fix": "humanevalfix",
    "human_eval_explain": "humanevalexplain",
    "humaneval_explain": "humanevalexplain",
    "humaneval_nl": "humanevalexplain",
    "cruxeval_o": "output_prediction",
    "cruxeval_i": "input_prediction",
    "toolbench": "tool_steps",
    "tool_bench": "tool_steps",
    "db_bench": "dbbench",
    "agentbench_dbbench": "dbbench",
    "os": "os_interaction",
    "agentbench_os": "os_interaction",
    "narrative_qa": "narrativeqa",
    "niah": "needle",
    "scrolls_narrative_qa": "scrolls_narrativeqa",
    "scrolls_contract_nli": "scrolls_contractnli",
    "scrolls_gov_report": "scrolls_govreport",
    "scrolls_summ_screen_fd": "scrolls_summscreenfd",
    "qasper": "scrolls_qasper",
    "qmsum": "scrolls_qmsum",
    "contract_nli": "scrolls_contractnli",
    "gov_report": "scrolls_govreport",
    "summ_screen_fd": "scrolls_summscreenfd",
}
GROUPS = {
    "arc": ("arc_easy", "arc_challenge"),
    "cruxeval": ("output_prediction", "input_prediction"),
    "code_reasoning": ("output_prediction", "input_prediction"),
    "humanevalpack": ("humanevalfix", "humanevalexplain"),
    "tool_use": ("function_call", "tool_steps"),
    "agentbench": ("dbbench", "os_interaction"),
    "scrolls": tuple(name for name in CATALOG if name.startswith("scrolls_")),
}
INFILLING = {  # other gaps than a single line
    "multi_line": "humaneval_multi_line_infilling",
    "random_span": "humaneval_random_span_infilling",
    "random_span_light": "humaneval_random_span_infilling_light",
}


def named(name: str) -> dict[str, Benchmark]:
    """The benchmarks that `name` stands for, by the name that results are kept under: `bbh`, `ARC-Easy`, `mmlu_anatomy`, `scrolls`.

    Raises MidtrainError with the likeliest meanings, and all names there are, for one that stands for nothing.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if plain in CATALOG:
        return {plain: CATALOG[plain]}
    if plain in ALIASES:
        return {ALIASES[plain]: CATALOG[ALIASES[plain]]}
    if plain in GROUPS:
        return {member: CATALOG[member] for member in GROUPS[plain]}
    part = _part(plain)
    if part is not None:
        return {part[0]: part[1]}
    near = get_close_matches(plain, [*CATALOG, *ALIASES, *GROUPS], n=3)
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise MidtrainError(f"no benchmark is called {name!r}{meant}; there are: {', '.join(sorted([*CATALOG, *GROUPS]))}")


def _part(plain: str) -> tuple[str, Benchmark] | None:
    """One subject of MMLU, one task of BIG-Bench Hard, one kind of MATH, one kind of infilling."""
    if plain.removeprefix("mmlu_") in MMLU and plain.startswith("mmlu_"):
        return plain, CATALOG["mmlu"]._replace(tasks=(plain,))
    task = plain.removeprefix("bbh_").removeprefix("cot_fewshot_")
    if plain.startswith("bbh_") and task in BBH:
        return f"bbh_{task}", CATALOG["bbh"]._replace(tasks=(f"bbh_cot_fewshot_{task}",), sets=(f"bbh_{task}",))
    kind = plain.removeprefix("hendrycks_").removeprefix("math_")
    if plain.startswith(("math_", "hendrycks_math_")) and kind in MATH:
        return f"math_{kind}", CATALOG["math"]._replace(tasks=(f"hendrycks_math_{kind}",))
    gap = plain.removeprefix("humaneval_").replace("_infilling", "")
    if gap in INFILLING and "infilling" in plain:
        name = INFILLING[gap]
        sets = (name, f"humaneval_{gap.replace('_', '')}infilling")  # the second as the paper's repository has it
        return name, CATALOG["humaneval_infilling"]._replace(tasks=(name,), sets=sets)
    return None
