"""Cards for people and programs: a data card and a model card in Hugging Face's formats, and Croissant for the data set."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import polars as pl

CROISSANT = "http://mlcommons.org/croissant/1.0"
KNOWN_LICENCES = {
    "apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "cc-by-4.0", "cc-by-3.0", "cc-by-sa-4.0", "cc-by-sa-3.0",
    "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0", "odc-by", "odbl",
    "openrail", "unlicense", "wtfpl", "zlib", "isc", "afl-3.0", "artistic-2.0", "bsl-1.0", "pddl", "agpl-3.0",
}  # fmt: skip
"""Identifiers that the hub's cards know; anything else is `other`, and its name is given in the text."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"),
         (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"), (10_000_000_000, "1B<n<10B"))  # fmt: skip


class Facts(NamedTuple):
    """What the cards say. Frames are small: one row a source, a component, a benchmark."""

    recipe: str
    description: str
    goal: Mapping[str, Any]
    base: str  # the model that training began with, in words
    documents: pl.DataFrame  # source, domain, language, license, documents, characters, cut_out: of what was packed
    sources: pl.DataFrame  # source, kind, retrieved, documents, licences
    left: pl.DataFrame  # source, rule, documents: what selection left out, and why
    mixture: pl.DataFrame  # component, share, tokens
    training: Mapping[str, Any]  # summary of the run
    configuration: Mapping[str, Any]  # plan of the run
    comparison: pl.DataFrame  # a row a benchmark and metric
    domains: pl.DataFrame  # bits per byte before and after
    contamination: pl.DataFrame  # benchmark, documents found
    withdrawn: list[dict[str, Any]]  # takedowns since it was trained
    versions: Mapping[str, str]  # asset@version → digest
    costs: Mapping[str, Any] | None  # totals of the ledger


def licences(facts: Facts) -> list[str]:
    """The hub's identifiers of all licences, sorted; `other` for what it does not know, `unknown` where none is stated."""
    named = {"unknown" if value is None else str(value).lower() for value in facts.documents["license"].unique()}
    return sorted({name if name in KNOWN_LICENCES or name == "unknown" else "other" for name in named})


def size_category(rows: int) -> str:
    """The hub's word for how large a data set is."""
    return next((word for limit, word in SIZES if rows < limit), "10B<n<100B")


def data_card(facts: Facts) -> str:
    """README.md of the data set that a recipe trained on."""
    from huggingface_hub import DatasetCardData

    made = facts.sources.filter(pl.col("kind") == "synthetic")["source"]
    synthetic = bool(len(facts.documents.filter(pl.col("source").is_in(made.implode()))))
    header = DatasetCardData(
        pretty_name=f"Mid-training data of {facts.recipe}",
        language=sorted({str(value) for value in facts.documents["language"].drop_nulls()}) or None,
        license=licences(facts),
        size_categories=size_category(int(facts.documents["documents"].sum() or 0)),
        task_categories=["text-generation"],
        source_datasets=["original"],
        annotations_creators=["machine-generated"] if synthetic else ["no-annotation"],
        tags=["mid-training", facts.recipe, *(["synthetic"] if synthetic else [])],
    )
    licensed = facts.documents.with_columns(pl.col("license").fill_null("not stated"))
    parts = [
        f"# Mid-training data of `{facts.recipe}`",
        facts.description,
        "## Where it comes from",
        table(facts.sources),
        "## What is in it",
        "`characters` are those that are trained on; `cut_out` were collected with the same documents and taken out of them.",
        table(by_group(facts.documents, "source", "domain")),
        "## Licences",
        table(by_group(licensed, "license").sort("documents", descending=True)),
        "## How it was chosen",
        "Documents were cleaned, deduplicated, rated and compared with benchmark questions; selection left out:",
        table(facts.left),
        "## How it is mixed",
        table(facts.mixture),
        "## Contamination",
        "A document that holds a benchmark question is left out, or the passage is cut out of it, as the recipe says. Found in all that was collected:",
        table(facts.contamination) if len(facts.contamination) else "nothing",
        "## Personal and sensitive information",
        "Sensitive spans (addresses, numbers, keys) are found and counted for each document; the recipe's rules decide on them.",
        *withdrawals(facts),
        "## Versions",
        "\n".join(f"- `{name}`: `{value}`" for name, value in sorted(facts.versions.items())),
    ]
    return f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def model_card(facts: Facts) -> str:
    """README.md of the model, its scores as `model-index`: each measured by this project on the questions that it names."""
    from huggingface_hub import ModelCardData

    header = ModelCardData(
        model_name=facts.recipe,
        language=sorted({str(value) for value in facts.documents["language"].drop_nulls()}) or None,
        license="other",
        license_name="see-data-card",
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=facts.base if "/" in facts.base else None,
        tags=["mid-training", "midtrain-dagster"],
        eval_results=list(results(facts)) or None,
    )
    run, plan = facts.training, facts.configuration
    shown = ("learning_rate", "peak_learning_rate", "schedule", "batch_sequences", "batch_tokens", "precision", "seed", "steps")
    parts = [
        f"# {facts.recipe}",
        facts.description,
        *withdrawals(facts),
        "## What it is",
        f"- trained from: {facts.base}",
        f"- tokens: {run.get('tokens', 0):,} in {run.get('steps', 0):,} steps; parameters: {run.get('parameters', 0):,}; "
        f"{run.get('precision')} on {run.get('device')}, {run.get('ranks', 1)} rank(s)",
        f"- meant to improve: {', '.join(facts.goal.get('target', ()))}; meant to keep: {', '.join(facts.goal.get('general', ()))}",
        "## What it gained and what it forgot",
        table(facts.domains.select("domain", "role", "base", "mid", "difference", "low", "high", "verdict")),
        table(
            facts.comparison.select(
                "benchmark", "metric", "questions", "base", "mid", "difference", "verdict", "set_aside", "clean_difference"
            )
        )
        if len(facts.comparison)
        else "No benchmark ran.",
        "`set_aside` counts questions that some collected document holds; `clean_difference` is the difference without them.",
        "## What it was trained on",
        table(facts.mixture),
        "Sources and licences: see the data card.",
        "## How it was trained",
        "\n".join(f"- {name}: `{json.dumps(plan[name], default=str)}`" for name in shown if plan.get(name) is not None)
        + "\n- the whole configuration: `plan.json` beside the weights",
        "## What it cost",
        cost_lines(facts.costs) if facts.costs else "No account was kept.",
        "## Limits",
        "A base model continued on the mixture above: it follows no instructions that its base does not follow, and it may "
        "repeat what its sources say, right or wrong. Scores hold for the questions and settings named here.",
        "## Versions",
        "\n".join(f"- `{name}`: `{value}`" for name, value in sorted(facts.versions.items())),
    ]
    return f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def results(facts: Facts) -> Iterator[Any]:
    """Scores of the trained model as the hub's evaluation results."""
    from huggingface_hub import EvalResult

    for row in facts.comparison.iter_rows(named=True):
        if row["mid"] is not None:
            yield EvalResult(
                task_type="text-generation",
                dataset_type=row["benchmark"],
                dataset_name=row["benchmark"],
                metric_type=row["metric"],
                metric_value=round(float(row["mid"]), 6),
            )
    for row in facts.domains.iter_rows(named=True):
        yield EvalResult(
            task_type="text-generation",
            dataset_type=f"held-out-{row['domain']}",
            dataset_name=f"held-out {row['domain']} text",
            metric_type="bits_per_byte",
            metric_value=round(float(row["mid"]), 6),
        )


def withdrawals(facts: Facts) -> list[str]:
    """What has been withdrawn since; nothing where nothing was."""
    if not facts.withdrawn:
        return []
    rows = pl.DataFrame(facts.withdrawn).select("takedown", "at", "reason", "documents", "tokens")
    return ["## Withdrawn since", "These documents were read in training and have been withdrawn since.", table(rows)]


def cost_lines(spent: Mapping[str, Any]) -> str:
    """Totals of the ledger."""
    named = {
        "CPU hours": spent["cpu_seconds"] / 3600,
        "accelerator hours": spent["gpu_seconds"] / 3600,
        "teacher tokens": spent["teacher_prompt_tokens"] + spent["teacher_completion_tokens"],
        "money": spent["money"],
    }
    return "\n".join(f"- {name}: {value:,.4g}" for name, value in named.items())


def croissant(facts: Facts, files: list[dict[str, Any]], columns: Mapping[str, str]) -> dict[str, Any]:
    """The data set as Croissant 1.0 JSON-LD. `files`: name, sha256, bytes; `columns` of their rows: name → Polars type."""
    kinds = {"String": "sc:Text", "Boolean": "sc:Boolean", "Date": "sc:Date"}
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CROISSANT,
        "name": f"midtrain_{facts.recipe}".replace("-", "_").replace(".", "_"),
        "description": facts.description,
        "license": [value or "not stated" for value in facts.documents["license"].unique().sort().to_list()],
        "url": f"midtrain:packed_sequences/{facts.recipe}",
        "version": "1.0.0",
        "creator": {"@type": "sc:Organization", "name": "midtrain-dagster"},
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file["name"],
                "name": file["name"],
                "contentUrl": file["name"],
                "contentSize": f"{file['bytes']} B",
                "encodingFormat": "application/x-parquet",
                "sha256": file["sha256"],
            }
            for file in files
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "documents",
                "name": "documents",
                "description": "The documents that were packed, one row each.",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"documents/{name}",
                        "name": name,
                        "dataType": kinds.get(
                            kind, "sc:Integer" if "Int" in kind else "sc:Float" if "Float" in kind else "sc:Text"
                        ),
                        "source": {"fileObject": {"@id": files[0]["name"]}, "extract": {"column": name}},
                    }
                    for name, kind in columns.items()
                ],
            }
        ],
    }


CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/", "examples": {"@id": "cr:examples", "@type": "@json"}, "equivalentProperty": "cr:equivalentProperty",
    "extract": "cr:extract", "field": "cr:field", "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet",
    "format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath",
    "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path", "recordSet": "cr:recordSet",
    "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace",
    "samplingRate": "cr:samplingRate", "sc": "https://schema.org/", "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField",
    "transform": "cr:transform",
}  # fmt: skip
"""The JSON-LD context that Croissant 1.0 prescribes."""


def by_group(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """Documents and characters by some columns."""
    return frame.group_by(*names).agg(pl.col("documents", "characters", "cut_out").sum()).sort(*names)


def table(frame: pl.DataFrame, rows: int = 200) -> str:
    """A frame as a Markdown table."""

    def cell(value: Any) -> str:
        said = "" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value}"
        return " ".join(said.split()).replace("|", "\\|")

    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * len(frame.columns)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in frame.head(rows).iter_rows()]
    return "\n".join(lines)
