"""Every decontamination method as assets on the demo's data: `python benchmarks/decontamination_assets.py --dir /tmp/methods`.

Writes a project into DIR: the embedded default without its generator and rater, and a recipe a method. Each method runs in turn on the
same lake, from the sources to the contamination report and the selection, and again, which must find nothing to do. Prints for each
how many documents it leaves out of every source, how many of the posts are found that were planted in `forum`, and its CPU seconds.
`DAGSTER_HOME=DIR/home MIDTRAIN_PROJECT=DIR/midtrain.yaml make ui` shows the last one's report.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import yaml
from graph_run import run

from midtrain_dagster.recipes import named
from midtrain_dagster.recipes.decontamination import METHODS
from resources.lake import Lake

DEFAULT = Path(__file__).parents[1] / "midtrain.yaml"
WANTED = dg.AssetSelection.assets("contamination_report", ["selected_documents", "method"])
LEFT_OUT = ("generators", "raters", "teacher", "recipes")


def main() -> None:
    """Run the methods, print a line each."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--dir", type=Path, required=True, help="where the project goes, and its lake")
    arguments.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
    arguments.add_argument(
        "--documents", type=int, help="of each source at most: `embedding` encodes every window of every one"
    )
    given = arguments.parse_args()
    root: Path = given.dir.resolve()
    root.mkdir(parents=True, exist_ok=True)
    for method in given.methods.split(","):
        write(root, method, given.documents)
        first, again = run(root, WANTED), run(root, WANTED)
        print(
            json.dumps({"method": method, **told(root), "up to date when run again": up_to_date(again), **checks(first)}),
            flush=True,
        )


def write(root: Path, method: str, documents: int | None) -> None:
    """The project with one recipe, which is the demo's but for the method and what needs a rating."""
    project = {k: v for k, v in yaml.safe_load(DEFAULT.read_text()).items() if k not in LEFT_OUT}
    for source in project["sources"] if documents else []:
        source["limit"] = documents
    (root / "midtrain.yaml").write_text(yaml.safe_dump({**project, "recipes": ["method.yaml"]}, sort_keys=False))
    recipe = named.load("demo").model_dump(mode="json")
    recipe |= {"name": "method", "decontamination": {"method": method}}
    recipe["selection"]["contamination"] = None
    (root / "method.yaml").write_text(json.dumps(recipe))


def told(root: Path) -> dict[str, Any]:
    """Of the last method: documents, evidence, what is left out of which source, cost of matching."""
    lake = Lake(root)
    fates, matches = (lake.tables.read(name) for name in ("selected_documents/method", "contamination_matches"))
    left_out = fates.filter(reason="contamination")
    planted = fates.filter(pl.col("source") == "forum")
    spent = lake.ledger.lines().filter(pl.col("asset").str.starts_with("contamination_matches/"))
    last = spent.group_by("asset").agg(pl.col("cpu_seconds").max())
    return {
        "documents": len(fates),
        "megabytes": round(
            lake.tables.scan("clean_documents").select(pl.col("text").str.len_bytes().sum()).collect().item() / 1e6, 1
        ),
        "pairs with evidence": len(matches),
        "left out": dict(left_out.group_by("source").len().sort("source").iter_rows()),
        "planted": f"{(planted['reason'] == 'contamination').sum()} of {len(planted)}",
        "cpu seconds": round(last["cpu_seconds"].sum(), 1),
    }


def up_to_date(result: dg.ExecuteInProcessResult) -> str:
    """How many assets of a run had nothing to do."""
    made = [event.materialization.metadata for event in result.get_asset_materialization_events()]
    same = sum(bool(metadata["up to date"].value) for metadata in made if "up to date" in metadata)
    return f"{same} of {len(made)}"


def checks(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """Names of checks that failed, where some did."""
    failed = [check.check_name for check in result.get_asset_check_evaluations() if not check.passed]
    return {"failed checks": failed} if failed else {}


if __name__ == "__main__":
    main()
