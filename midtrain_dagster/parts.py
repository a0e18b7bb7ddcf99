"""Which parts of a source are to be read, and what becomes of each document in them.

A part is a file, a dated snapshot, or a source that can only be read as a whole. Parts have an order, and a document is that of
the first part which has it. A part that has not changed is read again only where what it gives has: where a text of it is wanted
that the lake does not hold, or where a document of it has become a reject.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from midtrain_dagster.documents import ABOUT, REJECTED_SCHEMA, Batch, documents
from midtrain_dagster.pieces import KEYS
from midtrain_dagster.seen import Holders
from midtrain_dagster.staging import Staged

ALIKE = [*KEYS, *ABOUT]
KEPT, ELSEWHERE = pl.col("fate") == "kept", pl.col("fate") == "elsewhere"


class Outside(NamedTuple):
    """What is outside the lake, as of now.

    `whole`: one part, and nothing need be known of what is in it. `files`: in the order of `marks`; a document that an earlier
    file has is a reject, and what was only in a file that vanished is withdrawn. `snapshots`: the newest name first; an older
    text is superseded, which is no reject, and a snapshot that is not there any more, or is not named now, stays as it was.
    """

    kind: Literal["whole", "files", "snapshots"]
    marks: Mapping[str, str]  # part → fingerprint of what is there
    read: Callable[[Sequence[str], Holders], Iterable[Batch]]  # of parts, in their order

    def order(self, known: Iterable[str]) -> list[str]:
        """All parts that count; of two that have a document, the first holds it."""
        return sorted({*self.marks, *known}, reverse=True) if self.kind == "snapshots" else list(self.marks)


class Reading:
    """What one refresh reads of a source. Its documents, rejects and members go to `new`, `lost` and `parts`."""

    def __init__(
        self, outside: Outside, order: Sequence[str], members: pl.DataFrame, stored: "Stored", staged: Sequence[Staged]
    ):
        self.outside, self.stored = outside, stored
        self.read: list[str] = []
        self.left = pl.DataFrame(schema={"part": pl.String})  # parts that are read, or have vanished
        self.kept, self.passed = 0, 0  # documents that were read, and what was read that another part holds
        self.reasons = Counter[str]()  # of rejects that were read
        self._standing = members  # of the other parts
        self._released = members.clear()  # as they were known, of parts that have left
        self.superseded = members.clear()  # of the other parts, now that a newer text counts
        self._order = pl.DataFrame({"part": order}, {"part": pl.String}).with_row_index("rank")
        self._there = pl.DataFrame({"part": list(outside.marks)}, {"part": pl.String})
        self._found = [members.clear()]
        self._new, self._lost, self._parts = staged
        self._new.add(documents([]))
        self._lost.add(pl.DataFrame(schema={**REJECTED_SCHEMA, "part": pl.String}))

    def run(self, todo: Sequence[str], vanished: Sequence[str]) -> None:
        """Read `todo`, and then what has to be read again for what was found there, or went with `vanished`."""
        self._release([*todo, *vanished])
        with Holders(self._order["part"]) as holders:
            holders.know(self._obtainable().select("part", "id").iter_rows())
            if todo:
                self._take(todo, holders)
            while again := self._again():
                self._release(again)
                self._take(again, holders)

    def staying(self) -> pl.DataFrame:
        """Members of parts that were not read, as they are now."""
        return pl.concat([self.without(self._standing), self.superseded.with_columns(fate=pl.lit("elsewhere"))])

    def gone(self, known_alone: bool) -> list[str]:
        """Ids whose stored row is no longer what a document is. `known_alone`: without rows that no part is known to have had."""
        unmet = self.stored.unmet().join(self.staying().filter(KEPT), on="id", how="anti")
        if known_alone:
            unmet = unmet.join(pl.concat([self._released, self.superseded, *self._found]), on="id", how="semi")
        return unmet["id"].unique().sort().to_list()

    def changes(self, parts: Iterable[str]) -> bool:
        """Whether one of these parts is no longer as it was known."""
        return not self.left.join(pl.DataFrame({"part": list(parts)}, {"part": pl.String}), on="part", how="semi").is_empty()

    def without(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows by part as they were known, less those that are no longer so."""
        rows = rows.join(self.left, on="part", how="anti", maintain_order="left")
        return (
            rows.join(self.superseded, on=["part", "id"], how="anti", maintain_order="left") if "id" in rows.columns else rows
        )

    def _release(self, parts: Sequence[str]) -> None:
        """These no longer stand as they were known."""
        named = pl.DataFrame({"part": parts}, {"part": pl.String})
        self.left = pl.concat([self.left, named])
        self._released = pl.concat([self._released, self._standing.join(named, on="part", how="semi")])
        self._standing = self._standing.join(named, on="part", how="anti")

    def _take(self, parts: Sequence[str], holders: Holders) -> None:
        for batch in self.outside.read(parts, holders):
            self._new.add(self.stored.unknown(batch.documents))
            self._lost.add(batch.rejected)
            self.reasons.update(batch.rejected["reason"])
            self.kept += len(batch.documents)
            if batch.members is not None:
                self._parts.add(batch.members)
                self.passed += len(batch.members.filter(ELSEWHERE))
                if len(self.stored.keys):
                    self._found.append(batch.members)
        self.read += parts

    def _again(self) -> list[str]:
        """Parts that have not changed and give something else than they did, in order."""
        found = pl.concat(self._found)
        ids = pl.concat([found, self._released]).select("id").unique()
        both = pl.concat([self._obtainable().join(ids, on="id", how="semi"), found])
        first = both.join(self._order, on="part").sort("rank").unique("id", keep="first").select("id", holder="part")
        now = self._standing.join(first, on="id")
        lost = now.filter(pl.col("part") != pl.col("holder"), ~ELSEWHERE).drop("holder")
        won = now.filter(pl.col("part") == pl.col("holder"), ELSEWHERE)
        missing = (
            self._standing.filter(KEPT).join(self._there, on="part", how="semi").join(self.stored.keys, on="id", how="anti")
        )
        if self.outside.kind == "snapshots":
            self.superseded, lost = lost, lost.clear()
        parts = pl.concat([frame.select("part") for frame in (lost, won, missing)]).unique()
        return self._order.join(parts, on="part", how="semi", maintain_order="left")["part"].to_list()

    def _obtainable(self) -> pl.DataFrame:
        """Standing members without texts that are neither in the lake nor outside any more."""
        passed = self._standing.filter(ELSEWHERE).join(self._there, on="part", how="semi")
        return pl.concat([self._standing.filter(~ELSEWHERE), passed])


class Stored:
    """Which documents are stored, and which of them were met again: some hundred bytes each, without their text."""

    def __init__(self, keys: pl.DataFrame):
        self.keys = keys.with_row_index("row")
        self._met = np.zeros(len(keys), dtype=bool)

    def unknown(self, documents: pl.DataFrame) -> pl.DataFrame:
        """Those that are not stored with this text and with what a recipe can ask of them."""
        if self.keys.is_empty():
            return documents
        self._met[documents.select(ALIKE).join(self.keys, on=ALIKE, nulls_equal=True)["row"].to_numpy()] = True
        return documents.join(self.keys, on=ALIKE, how="anti", nulls_equal=True, maintain_order="left")

    def unmet(self) -> pl.DataFrame:
        """Ids of those that were never met."""
        return self.keys.filter(~pl.Series(self._met)).select("id")
