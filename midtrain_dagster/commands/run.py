"""`midtrain run`, `recover`, `status`, `report`: the graph through Dagster, the same instance that the UI shows."""

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from midtrain_dagster.commands import console, here
from midtrain_dagster.commands.abandoned import alive, end_abandoned
from midtrain_dagster.errors import MidtrainError

if TYPE_CHECKING:
    import dagster as dg

POLL_SECONDS = 0.5
OURS = f"{MidtrainError.__module__}.{MidtrainError.__name__}: "  # what Dagster puts before the words of such an error
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # the event log keeps everything
RECIPE = typer.Option(
    None, "--recipe", "-r", help="Name of a recipe, or the path of its YAML file; otherwise the project's first."
)


def register(app: typer.Typer) -> None:
    """Add run, recover, status and report."""
    app.command("run")(run)
    app.command("recover")(recover)
    app.command("status")(status)
    app.command("report")(report)


def run(
    recipe: str | None = RECIPE,
    full_log: bool = typer.Option(False, "--full-log", help="Show Dagster's own log as well."),
    max_hours: float | None = typer.Option(None, "--max-hours", help="Stop in order after so long."),
    max_money: float | None = typer.Option(None, "--max-money", help="Stop in order when machine and teacher cost so much."),
) -> None:
    """Run a recipe from its sources to its report. What is up to date is not done again."""
    from uuid import uuid4

    project, root = here.project()
    chosen = here.recipe(recipe, project, root)
    from midtrain_dagster.definitions import definitions, job_name

    with _instance(root) as instance:
        loaded = definitions(project, root, [chosen])
        job = loaded.resolve_job_def(job_name(chosen.name))
        run_id = str(uuid4())
        _recover(instance)
        shown = Shown(instance, run_id, len(list(job.asset_layer.executable_asset_keys)))
        started = time.monotonic()
        with alive(instance, run_id) as tags, shown:
            outcome = job.execute_in_process(
                run_config={} if full_log else QUIET,
                instance=instance,
                run_id=run_id,
                raise_on_error=False,
                tags={"midtrain/recipe": chosen.name, **limits(max_hours, max_money), **tags},
            )
        shown.summary(time.monotonic() - started)
        console.result(
            {
                "recipe": chosen.name,
                "run": run_id,
                "success": outcome.success,
                **shown.counts,
                "seconds": round(time.monotonic() - started, 1),
            }
        )
        if not outcome.success:
            raise MidtrainError(f"recipe {chosen.name}: " + (shown.problem or "the run failed; see it in the UI"))


def recover() -> None:
    """End runs whose process is gone (killed, or the machine went down), and free what they held. `run` does it by itself."""
    _, root = here.project()
    with _instance(root) as instance:
        console.result({"ended": _recover(instance)})


def _recover(instance: "dg.DagsterInstance") -> list[str]:
    ended = end_abandoned(instance)
    for run_id in ended:
        console.say(f"run {run_id[:8]} ended before its time: marked as failed, its places in pools are free again")
    return ended


def limits(hours: float | None, money: float | None) -> dict[str, str]:
    """Tags that narrow the project's budget for one run."""
    given = {"midtrain/max_hours": hours, "midtrain/max_money": money}
    return {tag: str(limit) for tag, limit in given.items() if limit is not None}


def status() -> None:
    """What each asset of the project has: rows or directory, when it was made, whether it is missing."""
    from rich.table import Table

    from midtrain_dagster.definitions import definitions

    project, root = here.project()
    with _instance(root) as instance:
        graph = definitions(project, root).resolve_asset_graph()
        table = Table(
            "asset", "group", "rows", "made", "data version", title=f"{project.name}: {len(graph.get_all_asset_keys())} assets"
        )
        rows: list[dict[str, Any]] = []
        for key in graph.toposorted_asset_keys:
            event = instance.get_latest_materialization_event(key)
            made = event.asset_materialization if event else None
            row = {
                "asset": key.to_user_string(),
                "group": graph.get(key).group_name,
                "rows": getattr(made.metadata.get("dagster/row_count"), "value", None) if made else None,
                "made": time.strftime("%Y-%m-%d %H:%M", time.localtime(event.timestamp)) if event else None,
                "data_version": ((made.tags or {}).get("dagster/data_version") or "")[:12] if made else None,
            }
            rows.append(row)
            count = f"{row['rows']:,}" if row["rows"] is not None else ""
            table.add_row(row["asset"], row["group"], count, row["made"] or "[dim]missing[/dim]", row["data_version"] or "")
    console.terminal().print(table)
    console.result({"project": project.name, "assets": rows})


def report(recipe: str | None = RECIPE) -> None:
    """Where the newest report of a recipe is."""
    lake, project = here.lake()
    chosen = here.recipe(recipe, project, lake.root)
    found = lake.artifacts.current(f"evaluation_report/{chosen.name}")
    path = found.path / "report.html"
    console.say(f"Report: {path}")
    console.result({"recipe": chosen.name, "report": str(path), **found.about})


def _instance(root: Path) -> "dg.DagsterInstance":
    """The instance that the UI shows: DAGSTER_HOME's where it is set, else that of the dagster.yaml beside the project file."""
    import dagster as dg

    if os.environ.get("DAGSTER_HOME"):
        return dg.DagsterInstance.get()
    if not (root / "dagster.yaml").exists():
        raise MidtrainError(
            f"{root}: there is no dagster.yaml beside the project file; copy the one of this repository, or set DAGSTER_HOME"
        )
    os.chdir(root)
    return dg.DagsterInstance.from_config(str(root))


class Shown:
    """Shows a run on the terminal while it goes on: a line for each finished asset, the newest progress line below."""

    def __init__(self, instance: "dg.DagsterInstance", run_id: str, assets: int):
        self.instance, self.run_id, self.assets = instance, run_id, assets
        self.console = console.terminal()
        self.status = self.console.status("starting")
        self.cursor: str | None = None
        self.counts = {"assets": 0, "up_to_date": 0, "worked_on": 0, "failed_checks": 0}
        self.problem: str | None = None
        self._since: dict[str, float] = {}
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Shown":
        self.status.start()
        self._watcher.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._stop.set()
        self._watcher.join()
        self._look()
        self.status.stop()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._look()

    def _look(self) -> None:
        if self.instance.get_run_by_id(self.run_id) is None:
            return
        while True:
            connection = self.instance.get_records_for_run(self.run_id, cursor=self.cursor)
            for record in connection.records:
                self._show(record.event_log_entry)
            self.cursor = connection.cursor
            if not connection.has_more:
                return

    def _show(self, entry: Any) -> None:
        event = entry.dagster_event
        if event is None:
            self._log(entry)
        elif event.event_type_value == "ENGINE_EVENT" and "blocked by limit" in (event.message or ""):
            self.console.print(f"[yellow]…[/yellow] {entry.step_key.replace('__', '/')}: {event.message}; another run is there")
        elif event.event_type_value == "STEP_START":
            self._since[entry.step_key] = entry.timestamp
        elif event.event_type_value == "ASSET_MATERIALIZATION":
            self._finished(event, entry.timestamp - self._since.get(entry.step_key, entry.timestamp))
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            check = event.asset_check_evaluation_data
            if not check.passed:
                self.counts["failed_checks"] += 1
                self.console.print(f"[red]✗[/red] check {check.check_name} of {check.asset_key.to_user_string()}")
        elif event.event_type_value == "STEP_FAILURE":
            error = event.step_failure_data.error
            cause = error.cause or error if error else None
            said = " ".join(cause.message.split()).removeprefix(OURS) if cause else "failed"
            self.problem = self.problem or f"{entry.step_key.replace('__', '/')}: {said}"
            self.console.print(f"[red]✗[/red] {entry.step_key.replace('__', '/')}: {said}", highlight=False)

    def _log(self, entry: Any) -> None:
        line = entry.user_message.strip().splitlines()
        if entry.level >= 20 and line:
            self.status.update(f"[dim]{self.counts['assets']}/{self.assets}[/dim] {line[-1][:150]}")

    def _finished(self, event: Any, seconds: float) -> None:
        made = event.step_materialization_data.materialization
        values = {name: getattr(value, "value", value) for name, value in made.metadata.items()}
        current = bool(values.get("up to date"))
        self.counts["assets"] += 1
        self.counts["up_to_date"] += current
        self.counts["worked_on"] += int(values.get("worked on") or 0)
        rows = values.get("dagster/row_count")
        said = f"{rows:,} rows" if rows is not None else ""
        if current:
            said = f"[dim]{said + ', ' if said else ''}up to date[/dim]"
        elif rows is not None:
            said += f", worked on {int(values.get('worked on') or 0):,}"
        self.console.print(
            f"[green]✓[/green] {made.asset_key.to_user_string():<42} {said}  [dim]{seconds:.1f} s[/dim]", highlight=False
        )

    def summary(self, seconds: float) -> None:
        """The last line for people."""
        done, current = self.counts["assets"], self.counts["up_to_date"]
        if done and done == current and not self.problem:
            self.console.print(f"[bold]Everything is up to date[/bold]: {done} assets, {seconds:.0f} s.")
        else:
            self.console.print(f"{done} of {self.assets} assets, {current} of them up to date before, {seconds:.0f} s.")
