"""The benchmarks: which task of lm-evaluation-harness (or of ours) each is, its conventional shots, and where its rows come from."""

from collections.abc import Mapping
from typing import NamedTuple

MMLU = [
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "business_ethics",
    "clinical_knowledge",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_medicine",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "econometrics",
    "electrical_engineering",
    "elementary_mathematics",
    "formal_logic",
    "global_facts",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_european_history",
    "high_school_geography",
    "high_school_government_and_politics",
    "high_school_macroeconomics",
    "high_school_mathematics",
    "high_school_microeconomics",
    "high_school_physics",
    "high_school_psychology",
    "high_school_statistics",
    "high_school_us_history",
    "high_school_world_history",
    "human_aging",
    "human_sexuality",
    "international_law",
    "jurisprudence",
    "logical_fallacies",
    "machine_learning",
    "management",
    "marketing",
    "medical_genetics",
    "miscellaneous",
    "moral_disputes",
    "moral_scenarios",
    "nutrition",
    "philosophy",
    "prehistory",
    "professional_accounting",
    "professional_law",
    "professional_medicine",
    "professional_psychology",
    "public_relations",
    "security_studies",
    "sociology",
    "us_foreign_policy",
    "virology",
    "world_religions",
]
BBH = [
    "boolean_expressions",
    "causal_judgement",
    "date_understanding",
    "disambiguation_qa",
    "dyck_languages",
    "formal_fallacies",
    "geometric_shapes",
    "hyperbaton",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "logical_deduction_three_objects",
    "movie_recommendation",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "sports_understanding",
    "temporal_sequences",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "web_of_lies",
    "word_sorting",
]
MATH = {
    "algebra": "Algebra",
    "counting_and_prob": "Counting & Probability",
    "geometry": "Geometry",
    "intermediate_algebra": "Intermediate Algebra",
    "num_theory": "Number Theory",
    "prealgebra": "Prealgebra",
    "precalc": "Precalculus",
}
OURS = "ours"  # directory of a benchmark whose task file is beside this module, in tasks/
PLAYED = "played"  # directory of one of several turns, in environments/


ROUGE = "geometric mean of ROUGE-1, -2 and -L of each document, then the mean; the paper takes the means first"


class Benchmark(NamedTuple):
    """One benchmark."""

    domain: str  # general, math, code, agent, long_context, reasoning
    directory: str  # below lm_eval/tasks, or OURS
    tasks: tuple[str, ...]  # names of its tasks; several form a group
    sets: tuple[str, ...]  # names that its files may go by
    metric: str  # the one that stands for it in comparisons, as in the harness's results
    filter: str = "none"  # whose answers that metric is taken from
    num_fewshot: int | None = None  # by convention; None: the task file's own
    gold: str | None = None  # Jinja over the row: the answer to score; None: the task's own target
    divide: str | None = None  # how rows of one file become those of several tasks: subject, type, or file
    about: str = ""  # paper
    notes: str = ""  # what is other than in the paper, in words


def _each(prefix: str, names: Mapping[str, str] | list[str]) -> tuple[str, ...]:
    return tuple(f"{prefix}_{name}" for name in names)


SCROLLS = {  # our name → its directory's name in SCROLLS
    "qasper": "qasper",
    "narrativeqa": "narrative_qa",
    "quality": "quality",
    "contractnli": "contract_nli",
    "qmsum": "qmsum",
    "govreport": "gov_report",
    "summscreenfd": "summ_screen_fd",
}


def _scrolls(name: str, metric: str, notes: str = "") -> Benchmark:
    task, sets = f"scrolls_{name}", (f"scrolls_{name}", f"scrolls_{SCROLLS[name]}")
    return Benchmark("long_context", OURS, (task,), sets, metric, num_fewshot=0, about="2201.03533", notes=notes)


CATALOG: dict[str, Benchmark] = {
    # general
    "mmlu": Benchmark("general", "mmlu/default", _each("mmlu", MMLU), ("mmlu",), "acc", num_fewshot=5, divide="subject", about="2009.03300"),
    "triviaqa": Benchmark("general", "triviaqa", ("triviaqa",), ("triviaqa", "trivia_qa"), "exact_match", "remove_whitespace", 5, "{{answer.value}}", about="1705.03551"),
    "nq_open": Benchmark("general", "nq_open", ("nq_open",), ("nq_open", "natural_questions"), "exact_match", "remove_whitespace", 5, "{{answer[0]}}", about="1906.00300"),
    "arc_easy": Benchmark("general", "arc", ("arc_easy",), ("arc_easy",), "acc_norm", num_fewshot=0, about="1803.05457"),
    "arc_challenge": Benchmark("general", "arc", ("arc_challenge",), ("arc_challenge",), "acc_norm", num_fewshot=25, about="1803.05457"),
    "hellaswag": Benchmark("general", "hellaswag", ("hellaswag",), ("hellaswag",), "acc_norm", num_fewshot=10, about="1905.07830"),
    "winogrande": Benchmark("general", "winogrande", ("winogrande",), ("winogrande", "winogrande_xl", "winogrande_1_1"), "acc", num_fewshot=5, about="1907.10641"),
    "bbh": Benchmark("general", "bbh/cot_fewshot", _each("bbh_cot_fewshot", BBH), _each("bbh", BBH), "exact_match", "get-answer", 3, "the answer is {{target}}.", "file", about="2210.09261"),
    # mathematics
    "gsm8k": Benchmark("math", "gsm8k", ("gsm8k",), ("gsm8k", "grade_school_math"), "exact_match", "strict-match", 5, about="2110.14168"),
    "math": Benchmark("math", "hendrycks_math", _each("hendrycks_math", MATH), ("math", "hendrycks_math"), "exact_match", num_fewshot=None, gold="{{solution}}", divide="type", about="2103.03874", notes="the harness's hendrycks_math prompt without shots; Minerva's four shots are in minerva_math"),
    "minerva_math": Benchmark("math", "minerva_math", _each("minerva_math", MATH), ("math", "hendrycks_math"), "exact_match", num_fewshot=4, gold="{{solution}}", divide="type", about="2206.14858"),
    # code
    "humaneval": Benchmark("code", "humaneval", ("humaneval",), ("humaneval", "human_eval"), "pass@1", "create_test", 0, "{{canonical_solution}}", about="2107.03374"),
    "mbpp": Benchmark("code", "mbpp", ("mbpp",), ("mbpp", "sanitized_mbpp"), "pass_at_1", "none", 3, "{{code}}", about="2108.07732"),
    "humaneval_infilling": Benchmark("code", "humaneval_infilling", ("humaneval_single_line_infilling",), ("humaneval_infilling", "humaneval_single_line_infilling", "humaneval_singlelineinfilling"), "pass@1", "create_test", 0, "{{canonical_solution}}", about="2207.14255"),
    "humanevalfix": Benchmark("code", OURS, ("humanevalfix",), ("humanevalfix", "humanevalpack_python"), "pass@1", num_fewshot=0, gold="{{canonical_solution}}", about="2308.07124"),
    "humanevalexplain": Benchmark("code", PLAYED, ("humanevalexplain",), ("humanevalexplain", "humanevalpack_python"), "pass@1", num_fewshot=0, about="2308.07124"),
    "output_prediction": Benchmark("code", OURS, ("output_prediction",), ("cruxeval", "code_reasoning"), "exact_match", num_fewshot=0, gold="{{output}}", about="2401.03065"),
    "input_prediction": Benchmark("code", OURS, ("input_prediction",), ("cruxeval", "code_reasoning"), "pass@1", num_fewshot=0, gold="{{input}}", about="2401.03065"),
    # agent
    "function_call": Benchmark("agent", OURS, ("function_call",), ("function_call", "tool_use"), "exact_call", num_fewshot=0, about="2305.15334"),
    "tool_steps": Benchmark("agent", PLAYED, ("tool_steps",), ("tool_steps", "toolbench"), "pass_rate", num_fewshot=0, about="2307.16789", notes="simulated APIs and exact answers in place of services and a judging model"),
    "dbbench": Benchmark("agent", PLAYED, ("dbbench",), ("agentbench_dbbench", "dbbench"), "success", num_fewshot=0, about="2308.03688", notes="SQLite in place of MySQL, at most 6 turns in place of 15"),
    "os_interaction": Benchmark("agent", PLAYED, ("os_interaction",), ("agentbench_os", "os_interaction"), "success", num_fewshot=0, about="2308.03688", notes="in the sandbox in place of a container: no root, no network"),
    # long context
    "narrativeqa": Benchmark("long_context", OURS, ("narrativeqa",), ("narrativeqa",), "f1", num_fewshot=0, about="1712.07040"),
    "quality": Benchmark("long_context", OURS, ("quality",), ("quality",), "acc", num_fewshot=0, about="2112.08608"),
    "needle": Benchmark("long_context", OURS, ("needle",), ("needle",), "exact_match", num_fewshot=0, about="2404.06654"),
    "ruler": Benchmark("long_context", OURS, ("ruler",), ("ruler",), "string_match_all", num_fewshot=0, about="2404.06654"),
    "scrolls_qasper": _scrolls("qasper", "f1", "yes/no questions are answered in words, not by likelihood"),
    "scrolls_narrativeqa": _scrolls("narrativeqa", "f1"),
    "scrolls_quality": _scrolls("quality", "acc"),
    "scrolls_contractnli": _scrolls("contractnli", "acc"),
    "scrolls_qmsum": _scrolls("qmsum", "rouge", ROUGE),
    "scrolls_govreport": _scrolls("govreport", "rouge", ROUGE),
    "scrolls_summscreenfd": _scrolls("summscreenfd", "rouge", ROUGE),
    # what is built from packages and held-out documents
    "reasoning_gym": Benchmark("reasoning", OURS, ("reasoning_gym",), ("reasoning_gym",), "score", num_fewshot=0, about="2505.24760"),
    "cloze": Benchmark("general", OURS, ("cloze",), ("cloze",), "acc", num_fewshot=0, about="1606.06031"),
    "code_completion": Benchmark("code", OURS, ("code_completion",), ("code_completion",), "exact_match", num_fewshot=0, about="2107.03374"),
}  # fmt: skip
