"""The language model that comes as a package, in the layout that transformers loads: made once, kept in the lake's cache."""

import os
import shutil
from pathlib import Path

from resources.lake import Lake

PACKAGED = "packaged"


def packaged_model(lake: Lake) -> Path:
    """Directory of SmolLM2-135M-Instruct as safetensors; dequantised from its GGUF file at the first call (half a minute)."""
    path = lake.cache_path("models") / "smollm2-135m-instruct"
    if not path.exists():
        from midtrain_dagster.train.base import import_gguf
        from midtrain_dagster.train.base import packaged_model as gguf

        partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        import_gguf(gguf(), partial)
        try:
            os.replace(partial, path)
        except OSError:  # another process was first
            shutil.rmtree(partial)
    return path
