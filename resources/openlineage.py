"""OpenLineage: run events to an endpoint, where one is set. An endpoint that fails never fails a run.

The events are those of https://openlineage.io/spec/2-0-2/OpenLineage.json: START when an asset begins, COMPLETE or FAIL when it
ends, with schema, column lineage and version of each data set.
"""

import json
import os
import urllib.request
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import dagster as dg

from resources.lake import Lake

PRODUCER = "https://github.com/midtrain-dagster/midtrain-dagster"
SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS = "https://openlineage.io/spec/facets"
SECONDS = 5.0


class OpenLineage:
    """The events of one asset in one run."""

    def __init__(self, url: str | None, key: str | None, job: str, run: str, parent: str, warn: Any):
        self.url, self.key, self.job, self.warn = url, key, job, warn
        self.run, self.parent = run, parent
        self.namespace = "midtrain"
        self.inputs: list[dict[str, Any]] = []
        self.place = ""

    @classmethod
    def of(cls, context: dg.AssetExecutionContext, lake: Lake) -> "OpenLineage":
        """For an asset: the endpoint of the project file, else that of OPENLINEAGE_URL; silent where there is neither."""
        name = context.asset_key.to_user_string()
        run = str(uuid5(NAMESPACE_URL, f"{context.run_id}/{name}"))
        url = lake.openlineage or os.environ.get("OPENLINEAGE_URL")
        told = cls(url, os.environ.get("OPENLINEAGE_API_KEY"), name, run, context.run_id, context.log.warning)
        told.place = lake.storage if lake.remote else f"file://{lake.local}"
        deps = context.assets_def.asset_deps.get(context.asset_key, set())
        told.inputs = [told.dataset(key.to_user_string()) for key in sorted(deps)]
        return told

    def dataset(self, name: str, facets: dict[str, Any] | None = None) -> dict[str, Any]:
        """A data set by the name of its asset."""
        return {"namespace": self.place, "name": name, "facets": facets or {}}

    def start(self) -> None:
        """The asset begins."""
        self._send("START", [self.dataset(self.job)], {})

    def complete(self, result: dg.MaterializeResult) -> None:
        """It is done; its columns, where they come from, and its version go with it."""
        if self.url is None:
            return
        self._send("COMPLETE", [self.dataset(self.job, self._facets(result))], {})

    def fail(self, message: str) -> None:
        """It failed."""
        told = {"message": message[:2000], "programmingLanguage": "PYTHON"}
        self._send("FAIL", [self.dataset(self.job)], {"errorMessage": facet("ErrorMessageRunFacet", "1-0-1", told)})

    def _facets(self, result: dg.MaterializeResult) -> dict[str, Any]:
        metadata = result.metadata or {}
        found: dict[str, Any] = {}
        if result.data_version is not None:
            told = {"datasetVersion": result.data_version.value}
            found["version"] = facet("DatasetVersionDatasetFacet", "1-0-1", told)
        schema = metadata.get("dagster/column_schema")
        if isinstance(schema, dg.TableSchema):
            fields = [{"name": column.name, "type": column.type} for column in schema.columns]
            found["schema"] = facet("SchemaDatasetFacet", "1-1-1", {"fields": fields})
        lineage = metadata.get("dagster/column_lineage")
        if isinstance(lineage, dg.TableColumnLineage):
            fields_of = {
                column: {
                    "inputFields": [
                        {"namespace": self.place, "name": dep.asset_key.to_user_string(), "field": dep.column_name}
                        for dep in deps
                    ]
                }
                for column, deps in lineage.deps_by_column.items()
            }
            found["columnLineage"] = facet("ColumnLineageDatasetFacet", "1-2-0", {"fields": fields_of})
        return found

    def _send(self, kind: str, outputs: list[dict[str, Any]], run_facets: dict[str, Any]) -> None:
        if self.url is None:
            return
        parent = {"run": {"runId": self.parent}, "job": {"namespace": self.namespace, "name": "midtrain"}}
        event = {
            "eventType": kind,
            "eventTime": datetime.now(UTC).isoformat(),
            "run": {"runId": self.run, "facets": {"parent": facet("ParentRunFacet", "1-0-1", parent), **run_facets}},
            "job": {"namespace": self.namespace, "name": self.job, "facets": {}},
            "inputs": self.inputs,
            "outputs": outputs,
            "producer": PRODUCER,
            "schemaURL": SPEC,
        }
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        try:
            where = f"{self.url.rstrip('/')}/api/v1/lineage"
            if not where.startswith(("http://", "https://")):
                raise ValueError("no http or https address")
            request = urllib.request.Request(where, json.dumps(event, default=str).encode(), headers)
            with urllib.request.urlopen(request, timeout=SECONDS):
                pass
        except (OSError, ValueError) as error:
            self.warn(f"OpenLineage: {kind} of {self.job} was not taken: {type(error).__name__}: {error}"[:300])


def facet(name: str, version: str, values: dict[str, Any]) -> dict[str, Any]:
    """Values as a facet of the specification."""
    return {"_producer": PRODUCER, "_schemaURL": f"{FACETS}/{version}/{name}.json#/$defs/{name}", **values}
