"""The graph, from top to bottom: one asset a source and stage, one asset a recipe and stage.

    embedded        the offline default's own web site, benchmark rows and planted leak (only with an `embedded:` section)
    collect         raw_documents/<source>           what the outside world holds becomes documents with an id for life
    synthesize      raw_documents/<generator>        a source whose collector is a language model
    clean           clean_documents/<source>         repaired text, language, quality signals, sensitive spans
    deduplicate     duplicate_clusters               exact and near duplicates across all sources
    decontaminate   benchmark_questions, contamination_matches/<source>, contamination_report
    rate            rater/<name>, document_ratings/<source>, coordinated_ratings, rating_report
    select          selected_documents/<recipe>      one query; every document left out says why
    scale           proxy_runs, scaling_law, scaling_plan/<recipe>
    mix             mixture, packed_sequences/<recipe>   shares and budgets; sequences with the document behind every span
    train           base_checkpoint, training_plan, midtrained_checkpoint/<recipe>   the plan shows every step before the run
    evaluate        base_evaluation, midtrained_evaluation/<recipe>
    report          evaluation_report/<recipe>          what was gained, lost and forgotten, in one HTML file
    audit           lineage_report, data_card, model_card, cost_report/<recipe>

Up to selection a stage measures and writes attributes; nothing is dropped. Selection decides, by query, from that evidence.
"""

from pathlib import Path

import dagster as dg

from assets import (
    audit,
    cards,
    clean,
    collect,
    coordinate,
    decontaminate,
    deduplicate,
    embedded,
    evaluate,
    last_look,
    mix,
    rate,
    raters,
    report,
    scale,
    select,
    synthesize,
    train,
)
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.decontamination import Decontamination
from midtrain_dagster.recipes.recipe import Recipe


def graph(
    project: Project, recipes: list[Recipe], root: Path
) -> tuple[list[dg.AssetsDefinition], list[dg.AssetChecksDefinition]]:
    """All assets and checks of a project with some recipes; `root` is the project file's directory."""
    method = recipes[0].decontamination.method if recipes else Decontamination().method
    written = embedded.written(project.embedded, root)
    read_by = {embedded.place_of(root, b.path) for b in project.benchmarks if b.path}
    rows = sorted({key for path, key in written.items() if any(path == p or path in p.parents for p in read_by)})
    built = [
        *embedded.assets(project.embedded),
        *collect.assets(project, written, root),
        *synthesize.assets(project),
        *clean.assets(project),
        *deduplicate.assets(project, method),
        *decontaminate.assets(project, recipes, rows),
        *raters.assets(project),
        *rate.assets(project, method),
        *coordinate.assets(project),
        *select.assets(project, recipes),
        *scale.assets(project, recipes),
        *mix.assets(recipes),
        *train.assets(project, recipes),
        *evaluate.assets(project, recipes, rows),
        *report.assets(project, recipes),
        *audit.assets(recipes),
        *cards.assets(project, recipes),
    ]
    checks = [
        *last_look.checks(recipes),
        *raters.checks(project),
        *mix.checks(recipes),
        *train.checks(recipes),
        *report.checks(recipes),
        *audit.checks(recipes),
    ]
    return built, checks
