"""A part of a project's graph in an instance that the UI can show: what benchmarks on whole assets share."""

from pathlib import Path

import dagster as dg

from midtrain_dagster.definitions import definitions
from midtrain_dagster.project import project as projects


def run(root: Path, wanted: dg.AssetSelection) -> dg.ExecuteInProcessResult:
    """Materialize some assets of `root`/midtrain.yaml and everything before them, with their checks, in the instance `root`/home."""
    made = definitions(projects.load(root / "midtrain.yaml"), root)
    jobs = [dg.define_asset_job("benchmark", selection=wanted.upstream())]
    graph = dg.Definitions(made.assets, resources=made.resources, asset_checks=made.asset_checks, jobs=jobs)
    home = root / "home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return graph.resolve_job_def("benchmark").execute_in_process(instance=instance)
