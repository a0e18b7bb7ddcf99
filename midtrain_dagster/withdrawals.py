"""What was withdrawn, and stays so: a rule for what must not come in, and a tombstone for each document that was taken out.

Two tables. `withdrawn_documents` holds one tombstone for each document that a takedown took out; its id is the same for life,
so it stays out. `takedowns` holds the rules (a text, an address, a host, a licence), each with its reason. Every refresh asks
both about every document it reads, so that nothing comes back, under whatever address or from whatever source.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Literal, NamedTuple

import polars as pl

from midtrain_dagster.documents import Batch
from midtrain_dagster.refresh import fingerprint, keep
from midtrain_dagster.staging import Staged
from midtrain_dagster.tables import Record, Tables, digest

RULES = "takedowns"
TOMBSTONES = "withdrawn_documents"
EVERY = "all"  # the partition of rules: they hold for every source
Kind = Literal["id", "text", "url", "domain", "license", "source"]

RULE_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "takedown": pl.String,  # the rules of one command share it
    "kind": pl.String,
    "value": pl.String,
    "reason": pl.String,
    "requested_by": pl.String,
    "at": pl.Datetime("us", "UTC"),
    "source": pl.String,
}
TOMBSTONE_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String,
    "text_hash": pl.String,
    "url": pl.String,
    "license": pl.String,
    "via": pl.String,  # the rule that it met, or `made from <id>`, or `copy of <id>`
    "takedown": pl.String,
    "at": pl.Datetime("us", "UTC"),
    "source": pl.String,
}

RULE_SCHEMA, TOMBSTONE_SCHEMA = pl.Schema(RULE_COLUMNS), pl.Schema(TOMBSTONE_COLUMNS)


class Rule(NamedTuple):
    """What must not come in.

    `id`; `text`: a text_hash; `url`: an address, or with a `*` at its end all that begin so, whatever the scheme; `domain`: a
    host and all below it, or without a dot the subject of a document; `license`, `none` where none is stated; `source`.
    """

    kind: Kind
    value: str

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"


class Withdrawn(NamedTuple):
    """What must not come in, as of now."""

    rules: tuple[Rule, ...]
    ids: pl.Series  # of documents that were taken out; they stay out for life
    version: str  # of both tables: changes with every takedown

    def __bool__(self) -> bool:
        return bool(self.rules) or bool(len(self.ids))

    def told(self) -> pl.Expr:
        """Over documents: why each must stay out, in words; null for those that may come in."""
        own = pl.when(pl.col("id").is_in(self.ids.implode())).then(pl.lit("id ") + pl.col("id"))
        parents = pl.col("parent_ids").list.set_intersection(pl.lit(self.ids.implode()))
        child = pl.when(parents.list.len() > 0).then(pl.lit("made from ") + parents.list.first())
        return pl.coalesce(meets(self.rules), own, child)


def withdrawn(tables: Tables) -> Withdrawn:
    """Everything that was ever taken down."""
    present = [name for name in (RULES, TOMBSTONES) if tables.exists(name)]
    given: tuple[Rule, ...] = ()
    ids = pl.Series("id", [], pl.String)
    if RULES in present:
        rows = tables.read(RULES).select("kind", "value").unique().sort("kind", "value")
        given = tuple(Rule(kind, value) for kind, value in rows.iter_rows())
    if TOMBSTONES in present:
        ids = tables.scan(TOMBSTONES).select("id").unique().sort("id").collect()["id"]
    return Withdrawn(given, ids, ".".join(f"{tables.version(name)}" for name in present))


def meets(given: Iterable[Rule]) -> pl.Expr:
    """Over documents: the first rule that each meets, in words; null where none."""
    by_kind: dict[str, list[str]] = {}
    for rule in given:
        by_kind.setdefault(rule.kind, []).append(rule.value)
    found = [_found(kind, values) for kind, values in sorted(by_kind.items())]
    return pl.coalesce(found) if found else pl.lit(None, pl.String)


def _found(kind: str, values: list[str]) -> pl.Expr:
    """The rule of one kind that a document meets, as `kind value`, or null."""
    if kind == "url":
        address = plain_address(pl.col("url"))
        whole = [plain(value) for value in values if not value.endswith("*")]
        starts = [plain(value[:-1], cut=False) for value in values if value.endswith("*")]
        hits = [pl.when(address.is_in(whole)).then(address)] if whole else []
        hits += [pl.when(address.str.starts_with(start)).then(pl.lit(f"{start}*")) for start in starts]
    elif kind == "domain":
        host = pl.col("url").str.to_lowercase().str.extract(r"^[a-z][a-z0-9+.-]*://(?:[^/@]*@)?([^/:?#]+)")
        hosts = [value.lower().strip(".") for value in values if "." in value]
        subjects = [value for value in values if "." not in value]
        hits = [pl.when((host == one) | host.str.ends_with(f".{one}")).then(pl.lit(one)) for one in hosts]
        hits += [pl.when(pl.col("domain").is_in(subjects)).then(pl.col("domain"))] if subjects else []
    elif kind == "license":
        licence = pl.col("license").str.to_lowercase().fill_null("none")
        hits = [pl.when(licence.is_in([value.lower() for value in values])).then(licence)]
    else:
        column = pl.col({"id": "id", "text": "text_hash", "source": "source"}[kind])
        hits = [pl.when(column.is_in(values)).then(column)]
    return pl.lit(f"{kind} ") + pl.coalesce(hits)  # null where none of them is met


def plain_address(column: pl.Expr) -> pl.Expr:
    """An address without scheme, fragment and a slash at its end."""
    return (
        column.str.replace(r"^(?i)[a-z][a-z0-9+.-]*://", "").str.replace(r"#.*$", "").str.strip_chars_end("/").replace("", None)
    )


def plain(address: str, cut: bool = True) -> str:
    """The same for one address; the beginning of one keeps its last slash."""
    rest = address.partition("://")[2] if "://" in address else address
    return rest.partition("#")[0].rstrip("/") if cut else rest


def without(batches: Iterable[Batch], gone: Withdrawn) -> Iterator[Batch]:
    """The batches without what was withdrawn and what is made from it; each such document becomes a reject that says why."""
    for batch in batches:
        marked = batch.documents.with_columns(_told=gone.told()) if gone and len(batch.documents) else None
        out = marked.filter(pl.col("_told").is_not_null()) if marked is not None else None
        if marked is None or out is None or not len(out):
            yield batch
            continue
        address = pl.coalesce("url", pl.lit("id ") + pl.col("id"))
        lost = out.select("id", "source", location=address, reason=pl.lit("withdrawn"), detail=pl.col("_told"))
        members = batch.members
        if members is not None:
            holder = pl.col("fate") == "kept"
            lost = lost.join(members.filter(holder).select("id", "part"), on="id", maintain_order="left")
            now = pl.when(holder & pl.col("id").is_in(out["id"].implode())).then(pl.lit("withdrawn")).otherwise("fate")
            members = members.with_columns(fate=now)
        kept = marked.filter(pl.col("_told").is_null()).drop("_told")
        yield Batch(kept, pl.concat([batch.rejected, lost.select(batch.rejected.columns)]), members)


def withdraw(tables: Tables, rows: pl.DataFrame, given: tuple[Rule, ...], reason: str, by: str, now: datetime) -> str:
    """Write tombstones and rules, then take the documents out of `raw_documents`; returns the takedown's name.

    `rows`: id, text_hash, url, license, source, via. A run killed in between leaves documents that the next refresh of
    their source takes out. What stands downstream follows with the next run, which sees the documents gone.
    """
    name = fingerprint([str(rule) for rule in given], reason, by, now)[:12]
    marked = rows.with_columns(takedown=pl.lit(name), at=pl.lit(now)).select(list(TOMBSTONE_SCHEMA)).cast(TOMBSTONE_SCHEMA)
    sources = marked["source"].unique().sort().to_list()
    for source in sources:
        some = marked.filter(pl.col("source") == source)
        record = Record(f"{TOMBSTONES}/{source}/{name}", name, "", digest(some), len(some), {}, {})
        tables.commit(TOMBSTONES, source, some, record, replace=False)
    told = pl.DataFrame(
        [(name, rule.kind, rule.value, reason, by, now, EVERY) for rule in given], schema=RULE_SCHEMA, orient="row"
    )
    tables.commit(RULES, EVERY, told, Record(f"{RULES}/{name}", name, "", digest(told), len(told), {}, {}), replace=False)
    for source in sources:
        enforce(tables, source)
    return name


def enforce(tables: Tables, source: str) -> int:
    """Take out of a source's `raw_documents` whatever was taken down since the last look; returns how many documents went.

    The record keeps its fingerprint: what is outside has not changed, so it is not read again.
    """
    last = tables.record("raw_documents", f"raw_documents/{source}")
    gone = withdrawn(tables)
    if last is None or not gone or last.about.get("takedowns") == gone.version:
        return 0
    out = tables.scan("raw_documents", source).filter(gone.told().is_not_null()).select("id").collect()["id"]
    if not len(out):
        noted = last._replace(about={**last.about, "takedowns": gone.version})
        tables.commit("raw_documents", source, pl.DataFrame(schema=tables.schema("raw_documents")), noted, replace=False)
        return 0
    about = {**last.about, "takedowns": gone.version, "taken down": int(last.about.get("taken down", 0)) + len(out)}
    with Staged(tables, "raw_documents", source) as kept:
        kept.add(pl.DataFrame(schema=tables.schema("raw_documents")))
        keep(kept, tables.pieces("raw_documents", source), out.to_list())
        kept.commit(last._replace(digest=kept.digest(), rows=kept.rows, about=about), replace=True)
    return len(out)
