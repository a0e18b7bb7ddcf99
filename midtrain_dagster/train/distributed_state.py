"""AdamW moments from a PyTorch distributed checkpoint, without letting a pickle run anything.

Its index, `.metadata`, is a pickle. It is read by an unpickler that knows only the few inert classes an index consists of and
refuses every other name, which is how `torch.load(weights_only=True)` reads; the tensors are read by that very function, and
what is stored as bytes is not read at all. Imported only inside functions, because it imports torch.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch  # noqa: TID253
import torch.distributed.checkpoint as dcp  # noqa: TID253
from torch import Tensor  # noqa: TID253
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata  # noqa: TID253

from midtrain_dagster.errors import MidtrainError

INERT = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties",
        "StorageMeta", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool"},
    "pathlib": {"PosixPath", "PurePosixPath"},
    "collections": {"OrderedDict"},
}  # fmt: skip
"""What an index may name: records, enumerations and types, none of which does anything when it is made."""


class IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in INERT.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no index of a checkpoint needs")
        return super().find_class(module, name)


class Reader(dcp.FileSystemReader):
    """PyTorch's reader with the careful unpickler."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        found = IndexUnpickler(io.BytesIO((Path(self.path) / ".metadata").read_bytes())).load()
        if not isinstance(found, Metadata):
            raise pickle.UnpicklingError("it is no index of a checkpoint")
        found.storage_meta = found.storage_meta or StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


def distributed_moments(path: Path, model: Any) -> tuple[dict[str, Tensor], float]:
    """`exp_avg.NAME` and `exp_avg_sq.NAME` of the parameters of `model` that the checkpoint knows, and the optimizer's steps.

    Keys are those of `get_optimizer_state_dict`: anything, then NAME, then the moment. Raises MidtrainError for an index that
    names anything else than an index does, and where there are no moments.
    """
    reader = Reader(path)
    try:
        entries = reader.read_metadata().state_dict_metadata
    except Exception as error:  # the unpickler raises many kinds; whichever it is, the file is refused
        raise MidtrainError(f"{path}/.metadata: not readable as an index: {' '.join(str(error).split())[:200]}") from None
    stored = {key: entry for key, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}
    places: dict[str, str] = {}
    for name, parameter in model.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            keys = [key for key in stored if f".{key}".endswith(f".{name}.{moment}")]
            if parameter.requires_grad and len(keys) == 1:
                places[f"{moment}.{name}"] = keys[0]
    if not places:
        raise MidtrainError(f"{path}: none of its tensors is a moment of a parameter of this model")
    counter = next(iter(places.values())).removesuffix("_sq").removesuffix("exp_avg") + "step"
    if counter not in stored:
        raise MidtrainError(f"{path}: does not say as a tensor how many steps its moments have seen ({counter})")
    wanted = {key: torch.zeros(stored[key].size, dtype=stored[key].properties.dtype) for key in [*places.values(), counter]}
    dcp.load(wanted, storage_reader=reader, no_dist=True)
    return {name: wanted[key].float() for name, key in places.items()}, float(wanted[counter])
