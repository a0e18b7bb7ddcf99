"""A project that ends with the selection, and what its assets made of some sources."""

from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import yaml

from midtrain_dagster import definitions as composed
from midtrain_dagster.project import project as projects
from resources.lake import Lake


class Curated(NamedTuple):
    """The lake after collection, cleaning, deduplication and selection of all sources; the metadata of each asset."""

    lake: Lake
    said: dict[str, dict[str, Any]]


def curated(root: Path, sources: list[dict[str, Any]], **more: Any) -> Curated:
    """Materialize the selection of a project of these sources, and everything before it. `more`: further keys of the project."""
    values = {
        "name": "curation",
        "storage": "lake",
        "automatic": False,
        "compute": {"workers": 1},
        "sources": sources,
        "embedder": {"model": "fake"},
        "recipes": ["chosen.yaml"],
        **more,
    }
    (root / "midtrain.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    recipe = yaml.safe_load((Path(composed.__file__).parent / "recipes" / "smoke.yaml").read_text())
    recipe |= {"name": "chosen", "held_out": {"one_in": 1000, "documents": 1, "characters": 100}}
    recipe["selection"]["quality"] = ["gopher", "stack"]
    (root / "chosen.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    project = projects.load(root / "midtrain.yaml")
    definitions = composed.definitions(project, root)
    job = dg.define_asset_job("curation", selection=dg.AssetSelection.keys(["selected_documents", "chosen"]).upstream())
    with dg.DagsterInstance.ephemeral() as instance:
        graph = dg.Definitions(assets=definitions.assets, resources=definitions.resources, jobs=[job])
        done = graph.resolve_job_def("curation").execute_in_process(instance=instance, raise_on_error=True)
        said = {
            event.asset_key.to_user_string(): {k: v.value for k, v in event.materialization.metadata.items()}
            for event in done.get_asset_materialization_events()
            if event.asset_key
        }
    return Curated(Lake(root, "lake"), said)
