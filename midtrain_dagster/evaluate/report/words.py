"""What people call benchmarks, domains and metrics, and how their numbers are written."""

from midtrain_dagster.evaluate.verdicts import LOWER_IS_BETTER

BENCHMARKS = {
    "mmlu": "MMLU",
    "triviaqa": "TriviaQA",
    "nq_open": "NaturalQuestions",
    "arc_easy": "ARC-Easy",
    "arc_challenge": "ARC-Challenge",
    "hellaswag": "HellaSwag",
    "winogrande": "WinoGrande",
    "bbh": "BIG-Bench Hard",
    "gsm8k": "GSM8K",
    "math": "MATH",
    "minerva_math": "MATH, Minerva's prompt",
    "humaneval": "HumanEval",
    "mbpp": "MBPP",
    "humaneval_infilling": "HumanEval infilling",
    "humanevalfix": "HumanEvalFix",
    "humanevalexplain": "HumanEvalExplain",
    "output_prediction": "Output prediction",
    "input_prediction": "Input prediction",
    "function_call": "Function calls",
    "tool_steps": "Tool use in steps",
    "dbbench": "DB-Bench",
    "os_interaction": "OS interaction",
    "narrativeqa": "NarrativeQA",
    "quality": "QuALITY",
    "needle": "Needle in a haystack",
    "ruler": "RULER probes",
    "scrolls_qasper": "SCROLLS Qasper",
    "scrolls_narrativeqa": "SCROLLS NarrativeQA",
    "scrolls_quality": "SCROLLS QuALITY",
    "scrolls_contractnli": "SCROLLS ContractNLI",
    "scrolls_qmsum": "SCROLLS QMSum",
    "scrolls_govreport": "SCROLLS GovReport",
    "scrolls_summscreenfd": "SCROLLS SummScreenFD",
    "reasoning_gym": "Reasoning gym",
    "cloze": "Last word of a paragraph",
    "code_completion": "Body of a function",
}
DOMAINS = {
    "general": "General knowledge and language",
    "math": "Mathematics",
    "code": "Code",
    "agent": "Agents and tools",
    "long_context": "Long context",
    "reasoning": "Reasoning",
    "overall": "All domains",
}
METRICS = {
    "acc": "accuracy",
    "acc_norm": "accuracy, by length",
    "exact_match": "exact match",
    "pass@1": "programs that pass",
    "pass_at_1": "programs that pass",
    "f1": "word F1",
    "rouge": "ROUGE",
    "success": "tasks done",
    "pass_rate": "tasks done",
    "exact_call": "right calls",
    "string_match_all": "values found",
    "score": "score",
    "gold_bits_per_byte": "bits per byte of the right answer",
    "bits_per_byte": "bits per byte of held-out text",
}


def benchmark(name: str) -> str:
    """As its paper calls it."""
    return BENCHMARKS.get(name, name.replace("_", " "))


def domain(name: str) -> str:
    """A domain of benchmarks in words."""
    return DOMAINS.get(name, name.replace("_", " "))


def metric(name: str) -> str:
    """A metric in words."""
    return METRICS.get(name, name.replace("_", " "))


def score(value: float | None, measure: str) -> str:
    """A score of 0 to 1 as percent, bits per byte as they are; a dash for a missing one."""
    if value is None:
        return "–"
    return f"{value:.3f}" if measure in LOWER_IS_BETTER else f"{100 * value:.1f} %"


def change(value: float | None, measure: str) -> str:
    """A difference of two of them, with its sign; points where they are percent."""
    if value is None:
        return "–"
    said = f"{value:+.3f}" if measure in LOWER_IS_BETTER else f"{100 * value:+.1f}"
    return said.lstrip("+-") if float(said) == 0 else said.replace("-", "−")
