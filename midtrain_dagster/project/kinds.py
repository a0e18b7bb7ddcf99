"""What people call the formats of sources: from a word and a location to a source's kind and the settings that the word implies."""

from functools import cache
from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.sources import KINDS

WORDS = {
    "crawl": "website web_site site live live_crawl spider url http web",
    "common_crawl": "commoncrawl cc cdx cdxj index common_crawl_index cc_index",
    "warc": "common_crawl_warc commoncrawl_warc cc_warc web_archive",
    "wet": "common_crawl_wet commoncrawl_wet cc_wet",
    "wikipedia": "wiki mediawiki wikimedia wikipedia_dump wiki_dump wikipedia_xml",
    "stackexchange": "stack_exchange stackoverflow stack_overflow se stack_exchange_dump stackexchange_dump",
    "jsonl": "json json_lines jsonlines ndjson",
    "arrow": "feather ipc arrow_ipc",
    "huggingface": "hf hugging_face huggingface_dataset hf_dataset dataset datasets table tables",
    "text": "txt plain plain_text plaintext gutenberg project_gutenberg markdown",
    "books": "book ebook ebooks",
    "code": "git source_code source git_checkout checkout directory",
    "instruction": "instructions sharegpt alpaca messages chat conversation conversations preference preferences dpo sft human "
    "annotated human_annotated dialogue",
    "multimodal": "image images image_text image_caption image_captions captions vision laion",
}
SUFFIXES = {
    ".warc": "warc",
    ".warc.gz": "warc",
    ".warc.zst": "warc",
    ".wet": "wet",
    ".wet.gz": "wet",
    ".epub": "epub",
    ".pdf": "pdf",
}


@cache
def _kinds() -> dict[str, str]:
    return {word: kind for kind, words in WORDS.items() for word in words.split()} | {kind: kind for kind in KINDS}


def implied(word: str, location: str, corpora: frozenset[str]) -> dict[str, Any]:
    """`kind` and whatever else the word says. `corpora`: names of the corpora whose columns are known, which are words too.

    Raises MidtrainError for a word that means nothing here.
    """
    plain = word.strip().lower().strip(".").replace("-", "_").replace(" ", "_").replace(".", "_")
    for compression in ("_gz", "_zst", "_bz2", "_xz", "_7z"):
        plain = plain.removesuffix(compression)
    if plain in ("repository", "repositories", "repo", "repos", "git_repository"):
        return {"kind": "code", "repository": True}
    known = {name.replace("_", ""): name for name in corpora}
    name = plain.replace("_", "")
    preset = known.get(name) or known.get(name.removeprefix("the"))
    if preset:
        return {"kind": "huggingface", "preset": preset}
    kind = _kinds().get(plain) or _kinds().get(name)
    if kind is None:
        raise MidtrainError(f"no format {word}; there are {', '.join(KINDS)}, and the corpora {', '.join(sorted(corpora))}")
    return {"kind": _by_file(kind, location.lower())}


def _by_file(kind: str, location: str) -> str:
    """The format that a file's name tells, where the word leaves it open: a WARC file is no index and no address to crawl."""
    if kind in ("crawl", "common_crawl", "books"):
        return next((found for suffix, found in SUFFIXES.items() if location.endswith(suffix)), kind)
    return kind
