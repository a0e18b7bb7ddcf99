"""What extraction keeps of HTML pages, and how fast; run by `curation.py`."""

import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np


def formulas(directory: Path) -> dict[str, Any]:
    """How many formulas of the HTML pages below a directory are in their extracted text, as LaTeX, by form and extractor."""
    from lxml import html as parser

    from midtrain_dagster.collect.html import Page, extract
    from midtrain_dagster.collect.mathematics import translated

    forms = {
        "images with TeX": "//img[contains(@class, 'math') and @alt]",
        "MathML": "//math",
        "MathJax": "//script[starts-with(@type, 'math/tex')]",
    }
    found: dict[str, dict[str, list[int]]] = {}
    for path in sorted(directory.rglob("*.html")):
        body = path.read_bytes()
        tree = parser.document_fromstring(
            body.decode("utf-8", "replace").encode("utf-8"), parser=parser.HTMLParser(encoding="utf-8")
        )
        wanted = {
            form: [
                node.get("alt") if node.tag == "img" else node.text or "" if node.tag == "script" else translated(node)
                for node in tree.xpath(place)
            ]
            for form, place in forms.items()
        }
        if not any(wanted.values()):
            continue
        for extractor, fast in (("trafilatura", False), ("trafilatura", True), ("resiliparse", False)):
            text = "".join(extract(Page("https://a.example/", body, "utf-8", None, "", {}), extractor, fast).text.split())
            counts = found.setdefault(extractor + (", fast" if fast else ""), {})
            for form, each in wanted.items():
                kept = sum("".join(one.split()) in text for one in each)
                total = counts.setdefault(form, [0, 0])
                total[0], total[1] = total[0] + kept, total[1] + len(each)
    return {
        label: {
            form: {"kept": kept, "of": total, "share": round(kept / total, 4)}
            for form, (kept, total) in counts.items()
            if total
        }
        for label, counts in found.items()
    }


def main_part(directory: Path, pages: int) -> dict[str, Any]:
    """Extracted words against those of the element that a page marks with role=main, as multisets, the mean over the pages.

    Precision is the share of the extracted words that belong to the main part: the rest is boilerplate.
    """
    import re
    from collections import Counter

    from lxml import html as parser

    from midtrain_dagster.collect.html import Page, extract, plain_text

    def words(text: str) -> Counter[str]:
        return Counter(re.findall(r"\w+", text.lower()))

    found: dict[str, dict[str, list[float]]] = {}
    paths = sorted(directory.rglob("*.html"))
    for path in paths[:: max(len(paths) // pages, 1)]:
        body = path.read_bytes()
        marked = parser.document_fromstring(body, parser=parser.HTMLParser(encoding="utf-8")).xpath("//*[@role='main']")
        wanted = words(plain_text(parser.tostring(marked[0], encoding="unicode"))) if marked else Counter[str]()
        if wanted.total() < 50:
            continue
        for extractor, fast in (("trafilatura", False), ("trafilatura", True), ("resiliparse", False)):
            started = time.process_time()
            got = words(extract(Page("https://a.example/", body, "utf-8", None, "", {}), extractor, fast).text)
            spent, common = time.process_time() - started, (got & wanted).total()
            values = found.setdefault(extractor + (", fast" if fast else ""), {})
            measures = {
                "precision": common / max(got.total(), 1),
                "recall": common / wanted.total(),
                "f1": 2 * common / (got.total() + wanted.total()),
                "without text": float(not got),
                "megabytes per cpu second": len(body) / 1e6 / max(spent, 1e-6),
            }
            for name, value in measures.items():
                values.setdefault(name, []).append(value)
    return {
        label: {"pages": len(values["f1"]), **{name: round(float(np.mean(each)), 4) for name, each in values.items()}}
        for label, values in found.items()
    }


def extraction(warc: Path, pages: int) -> dict[str, Any]:
    """Megabytes of HTML a second of each extractor: by one process, by two workers, and by two processes that share nothing.

    They take turns, three times, for a host that others use is never equally fast; the middle of the three counts. The last
    is what the machine's two cores can do at all: two virtual cores are often less than twice one.
    """
    found: dict[str, Any] = {}
    for label, settings in (
        ("trafilatura", {}),
        ("trafilatura, fast", {"fast": True}),
        ("resiliparse", {"extractor": "resiliparse"}),
    ):
        rounds = []
        for _ in range(3):
            alone = extracted([(warc, pages, settings, 1)])
            two = extracted([(warc, pages, settings, 2)])
            separate = extracted([(warc, pages // 2, settings, 1)] * 2)
            rounds.append((alone, two, separate, two / alone / 2, two / separate))
        alone, two, separate, of_twice, of_separate = (round(sorted(each)[1], 3) for each in zip(*rounds, strict=True))
        found[label] = {
            "one_process": alone,
            "two_workers": two,
            "two_separate_processes": separate,
            "share_of_twice_the_single_rate": of_twice,
            "share_of_two_separate_processes": of_separate,
        }
    return found


def extracted(jobs: list[tuple[Path, int, dict[str, Any], int]]) -> float:
    """Megabytes of HTML a second of reading jobs that run at the same time, each in a fresh process."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(len(jobs), mp_context=get_context("spawn")) as pool:
        return sum(pool.map(reading, jobs))


def reading(job: tuple[Path, int, dict[str, Any], int]) -> float:
    """Megabytes of HTML a second after the first page: WARC file, how many pages, settings of the source, workers."""
    from midtrain_dagster.collect.formats import read
    from midtrain_dagster.collect.html import Page
    from midtrain_dagster.collect.warc import pages as responses
    from midtrain_dagster.project.sources import source

    warc, limit, settings, workers = job
    records = read(
        source({"kind": "warc", "name": "s", "location": str(warc.resolve()), **settings}, "benchmark"), Path.cwd(), workers
    )
    next(records)
    started = time.perf_counter()
    rows = sum(1 for _ in islice(records, limit))
    spent = time.perf_counter() - started
    bodies = (len(page.body) if isinstance(page, Page) else 0 for page in responses(warc, warc.name, 1 << 24))
    return sum(islice(bodies, 1, rows + 1)) / 1e6 / spent
