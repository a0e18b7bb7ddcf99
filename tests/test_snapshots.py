"""Dated snapshots of one source: each read once, the newest text of a page counts."""

from pathlib import Path

import dagster as dg
import pytest
import yaml

from midtrain_dagster import definitions as composed
from midtrain_dagster.documents import Batch, document_id, documents, rejected
from midtrain_dagster.outside import refresh
from midtrain_dagster.parts import Outside
from midtrain_dagster.project import project as projects
from midtrain_dagster.snapshots import names, read
from midtrain_dagster.tables import Tables, digest
from resources.lake import Lake

MONTHS = {
    "2026-01": {"a": "old a", "b": "b"},
    "2026-02": {"a": "new a", "c": "c"},
    "2026-03": {"d": "d"},
}


class Crawl:
    """Snapshots in memory, and which were read."""

    def __init__(self, root: Path):
        self.tables, self.read = Tables(root), []

    def refresh(self, months: dict[str, dict[str, str]], base: str = "1"):
        self.read.clear()
        marks = {name: str(sorted(pages.items())) for name, pages in months.items()}
        outside = Outside(
            "snapshots", marks, lambda chosen, holders: read(chosen, holders, lambda name: self.batch(name, months[name]))
        )
        return refresh(self.tables, asset="raw_documents/web", name="raw_documents", source="web", base=base, outside=outside)

    def batch(self, name: str, pages: dict[str, str]) -> list[Batch]:
        self.read.append(name)
        rows = [{"id": document_id("web", url), "text": text, "source": "web", "url": url} for url, text in pages.items()]
        return [Batch(documents(rows), rejected([]))]

    def texts(self) -> dict[str, str]:
        return dict(self.tables.read("raw_documents", "web").select("url", "text").sort("url").iter_rows())


def some(*months: str) -> dict[str, dict[str, str]]:
    return {name: MONTHS[name] for name in months}


def test_a_new_snapshot_alone_is_read_and_the_newest_text_counts(tmp_path: Path) -> None:
    crawl = Crawl(tmp_path)
    assert crawl.refresh(some("2026-01")).worked == 2
    grown = crawl.refresh(some("2026-01", "2026-02"))
    assert (crawl.read, grown.worked, grown.gone) == (["2026-02"], 2, 1)
    assert crawl.texts() == {"a": "new a", "b": "b", "c": "c"}
    assert grown.digest == digest(crawl.tables.read("raw_documents", "web"))
    assert crawl.refresh(some("2026-01", "2026-02")).changed is False
    assert crawl.read == []


def test_the_order_in_which_snapshots_come_does_not_matter(tmp_path: Path) -> None:
    first, second = Crawl(tmp_path / "1"), Crawl(tmp_path / "2")
    first.refresh(MONTHS)
    for name in ("2026-03", "2026-02", "2026-01"):
        second.refresh(some(name))
    assert second.texts() == first.texts()
    assert second.refresh(MONTHS).digest == first.refresh(MONTHS).digest


def test_a_snapshot_that_was_deleted_stays(tmp_path: Path) -> None:
    crawl = Crawl(tmp_path)
    crawl.refresh(MONTHS)
    assert crawl.refresh(some("2026-03")).changed is False
    assert len(crawl.texts()) == 4


def test_a_page_taken_out_of_the_newest_snapshot_falls_back_to_the_older_text(tmp_path: Path) -> None:
    crawl = Crawl(tmp_path)
    crawl.refresh(MONTHS)
    crawl.refresh({**MONTHS, "2026-02": {"c": "c"}})
    assert crawl.read == ["2026-02", "2026-01"]
    assert crawl.texts()["a"] == "old a"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("crawl/{snapshot}/*.jsonl", ["2026-01", "2026-02"]),
        ("crawl/{snapshot}", ["2026-01", "2026-02"]),
        ("flat/pages-{snapshot}.jsonl", ["1", "2"]),
        ("nowhere/{snapshot}/x", []),
    ],
)
def test_names_are_found(tmp_path: Path, location: str, expected: list[str]) -> None:
    for name in ("crawl/2026-01/a.jsonl", "crawl/2026-02/a.jsonl", "flat/pages-1.jsonl", "flat/pages-2.jsonl", "flat/x.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert names(location, tmp_path) == expected


def test_in_the_graph_a_snapshot_is_a_partition_and_the_source_takes_what_is_left(project: Path) -> None:
    root = project.parent
    for month, text in (("2026-01", "an old page"), ("2026-02", "a newer page")):
        (root / "monthly" / month).mkdir(parents=True)
        (root / "monthly" / month / "pages.jsonl").write_text(f'{{"id": "p", "text": "{text}"}}\n')
    values = yaml.safe_load(project.read_text())
    monthly = {"name": "monthly", "kind": "jsonl", "location": "monthly/{snapshot}/*.jsonl", "domain": "prose"}
    values["sources"].append(monthly)
    project.write_text(yaml.safe_dump(values | {"operations": {"watch": ["monthly"]}}))
    loaded = projects.load(project)
    definitions = composed.definitions(loaded, root)
    dg.Definitions.validate_loadable(definitions)
    one, source = dg.AssetKey(["snapshots", "monthly"]), dg.AssetKey(["raw_documents", "monthly"])
    job = definitions.resolve_job_def("midtrain_smoke")
    assert source in job.asset_layer.executable_asset_keys
    assert one not in job.asset_layer.executable_asset_keys
    chosen = [asset for asset in definitions.assets or [] if asset.key in (one, source)]
    needs = composed.resources(loaded, root)
    with dg.instance_for_test() as instance:
        sensor = definitions.resolve_sensor_def("watch_monthly")
        context = dg.build_sensor_context(instance, definitions=definitions)
        context._instance_ref = instance.get_ref()  # as the daemon has it: new partitions are checked with it
        told = sensor.evaluate_tick(context)
        assert sorted(request.partition_key for request in told.run_requests) == ["2026-01", "2026-02"]
        instance.add_dynamic_partitions("snapshots_monthly", ["2026-01", "2026-02"])
        done = dg.materialize(chosen, selection=[one], partition_key="2026-01", instance=instance, resources=needs)
        assert done.success
        assert Lake(root, "lake").tables.read("raw_documents", "monthly")["text"].to_list() == ["an old page"]
        assert dg.materialize(chosen, selection=[source], instance=instance, resources=needs).success
    assert Lake(root, "lake").tables.read("raw_documents", "monthly")["text"].to_list() == ["a newer page"]


def test_what_was_known_of_the_snapshots_is_gone_and_a_deleted_one_stays(tmp_path: Path) -> None:
    crawl = Crawl(tmp_path)
    crawl.refresh(MONTHS)
    for file in crawl.tables.files("source_parts"):
        Path(file).unlink()
    crawl.refresh({**some("2026-02"), "2026-04": {"d": "newer d"}})
    assert crawl.texts() == {"a": "new a", "b": "b", "c": "c", "d": "newer d"}


def test_a_text_that_is_in_no_snapshot_any_more_is_left_out(tmp_path: Path) -> None:
    crawl = Crawl(tmp_path)
    crawl.refresh(MONTHS)
    later = {**some("2026-01", "2026-03"), "2026-04": {"a": "newest a"}}
    assert crawl.refresh(later).about == {
        "kept": 4,
        "superseded": 2,
        "read": 6,
        "rejected": 0,
        "rejected because": {},
        "snapshots": 4,
    }
    crawl.refresh({**later, "2026-04": {}})
    assert crawl.read == ["2026-04", "2026-01"]
    assert crawl.texts()["a"] == "old a"
