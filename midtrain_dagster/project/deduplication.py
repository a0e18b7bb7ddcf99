"""How a project finds duplicates: what counts as near, with which error, and which member of a cluster survives."""

from typing import Literal

from pydantic import Field

from midtrain_dagster.settings import Settings


class Deduplication(Settings):
    """Exact and near duplicates (MinHash LSH); where asked, repeated lines and paragraphs, and semantic duplicates."""

    ngram: int = Field(default=5, ge=1, description="Words in a shingle.")
    jaccard: float = Field(
        default=0.8, gt=0, lt=1, description="Jaccard similarity of shingle sets from which two documents are near duplicates."
    )
    permutations: int = Field(
        default=128,
        ge=8,
        le=1024,
        description="Hash functions of a signature; the error of its estimate is sqrt(J(1-J)/permutations).",
    )
    bands: int | None = Field(
        default=None, ge=1, description="LSH bands; null: chosen from jaccard and permutations (see bands_for)."
    )
    rows: int | None = Field(default=None, ge=1, description="Hashes in a band; null: chosen.")
    confirm: bool = Field(
        default=True,
        description="Keep a candidate pair only when its estimated Jaccard reaches `jaccard` less three standard errors.",
    )
    seed: int = Field(default=1, description="Seed of the hash functions. Signatures of different seeds do not compare.")
    minimum_words: int = Field(default=5, ge=1, description="Documents of fewer words are compared exactly only.")
    survivor: Literal["longest", "first"] = Field(
        default="longest", description="Which member of a cluster stays; ties go to the smallest id."
    )
    repeated: bool = Field(
        default=False,
        description="Also measure what of each document many of its source have: `signal.repeated_line_character_ratio`, …",
    )
    line_characters: int = Field(default=20, ge=1, description="Shorter lines and paragraphs are never counted as repeated.")
    line_documents: int = Field(
        default=10, ge=2, description="A line or paragraph in at least so many documents of a source is a repeated one."
    )
    semantic_clusters: bool = Field(
        default=False, description="Also find semantic duplicates with the project's `embedder`: `by: [near, semantic]`."
    )
    semantic: float = Field(
        default=0.95, gt=0, le=1, description="Cosine similarity from which two documents are semantic duplicates."
    )
    semantic_exact: int = Field(
        default=100_000,
        ge=1,
        description="Up to so many vectors every pair is compared; beyond, the pairs within cells of k-means.",
    )
    memory: str = Field(
        default="2GB", pattern=r"^\d+(\.\d+)?(MB|GB)$", description="Memory of the clustering; more is spilled to disk."
    )
