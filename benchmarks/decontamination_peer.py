"""What datatrove's n-gram filter does with the same documents and questions; run by `decontamination.py` with the Python of an
environment that has it (`pip install "datatrove[processing]"`).

    python decontamination_peer.py documents.parquet questions.parquet answer.json

Writes one JSON object: for each configuration the ids that go, and CPU seconds of the filter alone. The index is made by
datatrove's own `compute_hashes`; its `run` would load lighteval, which has nothing to do with these questions.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace


def main(documents, questions, answer):
    import pyarrow.parquet as pq
    from datatrove.utils.text import TextNormConfig

    texts = pq.read_table(documents, columns=["id", "text"]).to_pylist()
    asked = pq.read_table(questions, columns=["question", "answer"]).to_pylist()
    found = {}
    kept = {"norm_config": TextNormConfig(norm_numbers=False)}  # its default makes every number 0
    for name, chosen in (
        ("datatrove", {}),
        ("datatrove, numbers kept", kept),
        ("datatrove, numbers kept, questions too", {**kept, "find_query_ngrams": True}),
    ):
        found[name] = filtered(texts, asked, chosen)
    Path(answer).write_text(json.dumps(found))


def filtered(texts, asked, chosen):
    """datatrove's filter with 12 words; by default n-grams of the answer and across question and answer, not of the question alone."""
    import numpy as np
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer

    config = NGramsDecontConfig(**chosen)
    with tempfile.TemporaryDirectory() as folder:
        peer = NGramsDecontFilter(folder, config)
        indexer = SimpleNamespace(config=config, tokenizer=peer.tokenizer, hash_func=peer.hash_func)
        hashes = set()
        for row in asked:
            hashes.update(NGramsDecontIndexer.compute_hashes(indexer, row["answer"] or "", row["question"]))
        Path(folder, "all.index.hashes").write_bytes(np.array(sorted(hashes), dtype=config.hash_config.np_descr).tobytes())
        peer.filter(Document(text="warm up " * 20, id="0"))
        start = time.process_time()
        gone = [row["id"] for row in texts if peer.filter(Document(text=row["text"], id=row["id"])) is not True]
        return {"contaminated": gone, "seconds": time.process_time() - start}


if __name__ == "__main__":
    main(*sys.argv[1:])
