"""What stands in for the outside world in the offline default: a web site, benchmark rows, and a leak of some of them.

These assets exist only where the project file has an `embedded:` section. A project with sources of its own has none of them.
"""

import os
from pathlib import Path
from typing import Any

import dagster as dg

from assets.measure import measured
from assets.outcome import OWNERS, of_artifact
from midtrain_dagster.artifacts import content_digest
from midtrain_dagster.code import code_version
from midtrain_dagster.collect.render import render_site
from midtrain_dagster.decontaminate.questions import read_questions
from midtrain_dagster.embedded import write_leaks
from midtrain_dagster.project.project import Embedded
from midtrain_dagster.refresh import fingerprint
from resources.lake import Lake

GROUP = "embedded"
SITE = dg.AssetKey(["embedded", "website"])
BENCHMARKS = dg.AssetKey(["embedded", "benchmarks"])
ROWS_CODE = code_version("evaluate.embedded", "evaluate.simulated")
LEAKS = dg.AssetKey(["embedded", "leaks"])


def website(settings: Embedded) -> dg.AssetsDefinition:
    """A WARC of the documentation of installed libraries."""

    @dg.asset(
        key=SITE,
        group_name=GROUP,
        kinds={"warc"},
        owners=OWNERS,
        code_version=code_version("collect"),
        description="Documentation of installed libraries, rendered to HTML pages and written as a crawl: "
        + ", ".join(settings.packages),
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        versions = {package: version_of(package) for package in settings.packages}

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            counts = render_site(settings.packages, out / "website.warc.gz")
            return content_digest(out), {**counts, "packages": versions}

        artifact, made = lake.artifacts.build("embedded/website", fingerprint(code_version("collect"), versions), make, {})
        publish(artifact.path / "website.warc.gz", lake.root / settings.website)
        return of_artifact(context, artifact, made)

    return asset


def version_of(package: str) -> str:
    """Installed version of the distribution that carries an importable package."""
    from importlib.metadata import packages_distributions, version

    names = packages_distributions().get(package)
    return version(names[0]) if names else ""


def publish(file: Path, to: Path) -> None:
    """Put a finished file, or directory, where the project file names it."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.is_symlink() or to.exists():
        if to.resolve() == file.resolve():
            return
        to.unlink()
    to.symlink_to(file.resolve(), target_is_directory=file.is_dir())


def benchmarks(settings: Embedded) -> dg.AssetsDefinition:
    """Rows of benchmarks that packages carry or make from a seed."""

    @dg.asset(
        key=BENCHMARKS,
        group_name=GROUP,
        kinds={"json"},
        owners=OWNERS,
        code_version=ROWS_CODE,
        description="Benchmark rows without a hub: HumanEval from its package, seeded tasks from reasoning-gym.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        mark = fingerprint(ROWS_CODE, settings.seed, settings.questions)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            from midtrain_dagster.evaluate.embedded import write_embedded

            written = write_embedded(out / "rows", settings.seed, settings.questions)
            return content_digest(out / "rows"), {"benchmarks": sorted(written)}

        artifact, made = lake.artifacts.build("embedded/benchmarks", mark, make, {})
        publish(artifact.path / "rows", lake.root / settings.benchmarks)
        return of_artifact(context, artifact, made)

    return asset


def leaks(settings: Embedded) -> dg.AssetsDefinition:
    """A source that quotes benchmark questions, so that there is something to find."""

    @dg.asset(
        key=LEAKS,
        deps=[BENCHMARKS],
        group_name=GROUP,
        kinds={"json"},
        owners=OWNERS,
        code_version=code_version("embedded"),
        description=f"{settings.planted} forum posts that quote benchmark questions, planted to be found and left out.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        rows = lake.artifacts.current("embedded/benchmarks")
        mark = fingerprint(code_version("embedded"), rows.digest, settings.planted)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            written = write_leaks(read_questions([rows.path / "rows"]), out / "leaks.jsonl", settings.planted)
            return content_digest(out), {"posts": written}

        artifact, made = lake.artifacts.build("embedded/leaks", mark, make, {"embedded/benchmarks": rows.fingerprint})
        publish(artifact.path / "leaks.jsonl", lake.root / settings.leaks)
        return of_artifact(context, artifact, made)

    return asset


def assets(settings: Embedded | None) -> list[dg.AssetsDefinition]:
    """The three of them, or none."""
    return [website(settings), benchmarks(settings), leaks(settings)] if settings else []


def written(settings: Embedded | None, root: Path) -> dict[Path, dg.AssetKey]:
    """Which files the embedded assets write, so that sources that read them depend on them."""
    if settings is None:
        return {}
    places = {settings.website: SITE, settings.benchmarks: BENCHMARKS, settings.leaks: LEAKS}
    return {place_of(root, place): key for place, key in places.items()}


def place_of(root: Path, location: str | Path) -> Path:
    """A location as an absolute path, links not followed: what is published here is a link to an artifact."""
    return Path(os.path.abspath(root / location))
