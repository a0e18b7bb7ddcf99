"""What the peers do with the same documents; run by `curation.py` with the Python of an environment that has them.

    python curation_peer.py documents.parquet answer.json filters|minhash|rensa|language

Writes one JSON object: decisions or clusters, and CPU seconds of this process.
"""

import json
import struct
import sys
import tempfile
import time
from pathlib import Path


def documents(path):
    import pyarrow.parquet as pq
    from datatrove.data import Document

    return [Document(text=row["text"], id=row["id"]) for row in pq.read_table(path, columns=["id", "text"]).to_pylist()]


def filters(path):
    """datatrove's four quality filters, each document by each filter; the reason where it goes."""
    from datatrove.data import Document
    from datatrove.pipeline.filters.c4_filters import C4QualityFilter
    from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
    from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
    from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
    from datatrove.utils.text import split_into_parts

    named = {
        "gopher": GopherQualityFilter(),
        "gopher_repetition": GopherRepetitionFilter(),
        "c4": C4QualityFilter(),
        "fineweb": FineWebQualityFilter(),
    }
    named["gopher"].filter(Document(text="warm up " * 60, id="0"))
    reasons, seconds = {}, {}
    for name, peer in named.items():
        if hasattr(split_into_parts, "cache_clear"):
            split_into_parts.cache_clear()
        texts, found = documents(path), []
        start = time.process_time()
        for document in texts:
            try:
                kept = peer.filter(document)
                found.append(None if kept is True else kept[1] if isinstance(kept, tuple) else "no reason")
            except ZeroDivisionError:
                found.append("ZeroDivisionError")
        seconds[name] = time.process_time() - start
        reasons[name] = found
    return {"reasons": reasons, "seconds": seconds}


def minhash(path):
    """datatrove's MinHash, its four steps one after the other, with its own settings; the cluster of each document."""
    from datatrove.pipeline.dedup.minhash import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )

    texts = documents(path)
    with tempfile.TemporaryDirectory() as folder:
        signer = MinhashDedupSignature(output_folder=f"{folder}/signatures")
        signer.get_shingles("warm up of the word tokenizer " * 4)
        start = time.process_time()
        signer.run(iter(texts))
        signed = time.process_time()
        for bucket in range(14):
            MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets").run(None, bucket, 14)
        MinhashDedupCluster(f"{folder}/buckets", f"{folder}/clusters", save_cluster_id=True).run()
        kept = sum(1 for _ in MinhashDedupFilter(f"{folder}/clusters").run(iter(texts)))
        end = time.process_time()
        found = Path(f"{folder}/clusters/000000.clusters")  # absent where there are no duplicates
        data = found.read_bytes() if found.exists() else b""
    clusters = list(struct.iter_unpack("<2I", data))
    return {
        "clusters": clusters,
        "kept": kept,
        "seconds": {"minhash_signatures": signed - start, "minhash_end_to_end": end - start},
    }


def rensa(path):
    """rensa's signatures alone (R-MinHash, 112 permutations), over words split at white space."""
    from rensa import RMinHash

    texts = documents(path)
    start = time.process_time()
    for document in texts:
        words = document.text.lower().split()
        signer = RMinHash(num_perm=112, seed=1)
        signer.update([" ".join(words[i : i + 5]) for i in range(max(len(words) - 4, 1))])
        signer.digest()
    return {"seconds": {"rensa_signatures": time.process_time() - start}}


def language(path):
    """fastText itself, as datatrove's language filter calls it; the model is ours, for its own must be downloaded."""
    import fasttext

    model = fasttext.load_model(sys.argv[4])
    texts = documents(path)
    start = time.process_time()
    labels = [model.predict(document.text.replace("\n", " "))[0][0] for document in texts]
    return {"labels": labels, "seconds": {"language": time.process_time() - start}}


if __name__ == "__main__":
    steps = {"filters": filters, "minhash": minhash, "rensa": rensa, "language": language}
    Path(sys.argv[2]).write_text(json.dumps(steps[sys.argv[3]](sys.argv[1])))
