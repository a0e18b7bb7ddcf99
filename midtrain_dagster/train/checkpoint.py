"""Checkpoints of a running training: safetensors and JSON, sharded, written in the background, complete or absent.

    OUT/state/step-00000120/weights-00000.safetensors     trainable weights in fp32: rank 0's rows of each
                            optimizer-00000.safetensors   exp_avg.NAME, exp_avg_sq.NAME
                            average-00000.safetensors     the average of the weights, where one is kept
                            …                             the same of every other rank
                            state.json                    step, fingerprint, optimizer steps, guards, validations

A rank copies its rows, goes on training, and a thread writes them. Each file says in its header which rows it has of which whole,
so any number of ranks reads what it needs and no rank ever holds another's part. Imported only inside functions (it imports torch).
"""

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from threading import Thread
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor  # noqa: TID253

from midtrain_dagster.errors import MidtrainError

KINDS = ("weights", "optimizer", "average")
PATIENCE = 1800.0
"""Seconds that rank 0 waits for the files of the others."""


@dataclass(frozen=True)
class Rows:
    """A rank's rows of a tensor: from `begin` on, of `whole` rows."""

    values: Tensor
    begin: int
    whole: int


class Stored(Mapping[str, Tensor]):
    """Tensors of one kind in a checkpoint, by name: whole, or the rows that are asked for. Nothing is read before."""

    def __init__(self, folder: Path, kind: str):
        self._places: dict[str, list[tuple[int, int, Path]]] = {}
        for file in sorted(folder.glob(f"{kind}-*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                begins = json.loads((tensors.metadata() or {})["begins"])
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    rows = tensors.get_slice(name).get_shape()[0]
                    self._places.setdefault(name, []).append((begins[name], begins[name] + rows, file))

    def __getitem__(self, name: str) -> Tensor:
        return self.rows(name, 0, max(end for _, end, _ in self._places[name]))

    def __iter__(self) -> Any:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, name: str, begin: int, end: int) -> Tensor:
        """Rows [begin, end) of a tensor, from whichever files hold them."""
        import torch

        parts: list[Tensor] = []
        for first, last, file in sorted(self._places[name]):
            low, high = max(begin, first), min(end, last)
            if low < high or not parts:  # at least an empty part, which knows the other dimensions
                with safe_open(file, framework="pt") as tensors:
                    parts.append(tensors.get_slice(name)[max(low - first, 0) : max(high - first, 0)])
        return torch.cat(parts) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class Checkpoint:
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    state: dict[str, Any]


def place(out: Path, step: int) -> Path:
    return out / "state" / f"step-{step:08d}"


def partial(out: Path, step: int) -> Path:
    return out / "state" / f".partial-{step:08d}"


def begin(out: Path, step: int) -> None:
    """Make room for a checkpoint: rank 0 does it before any rank writes, and after every earlier one is done."""
    for left in (out / "state").glob(".partial-*"):
        shutil.rmtree(left)
    partial(out, step).mkdir(parents=True)


@dataclass
class Writer:
    """One rank's thread that writes; at most one checkpoint at a time."""

    rank: int
    world: int
    _thread: Thread | None = None
    _errors: list[BaseException] = field(default_factory=list)

    def start(
        self,
        out: Path,
        step: int,
        kinds: Mapping[str, Mapping[str, Rows]],
        state: dict[str, Any],
        keep: int,
        anchor: int | None,
    ) -> None:
        """Write `kinds` (owned by the writer from here on) in the background; rank 0 then names the checkpoint and removes all
        but the newest `keep` and the anchor.
        """

        def work() -> None:
            try:
                folder = partial(out, step)
                for kind, tensors in kinds.items():
                    write(folder / f"{kind}-{self.rank:05d}.safetensors", tensors)
                if self.rank == 0:
                    self._await(folder, len(kinds))
                    name(out, step, state, keep, anchor)
            except BaseException as error:
                self._errors.append(error)

        self.wait()
        self._thread = Thread(target=work, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written any more; raises what went wrong."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._errors:
            raise self._errors.pop()

    def _await(self, folder: Path, kinds: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while len(list(folder.glob("*.safetensors"))) < kinds * self.world:
            if time.monotonic() > deadline:
                raise MidtrainError(f"{folder}: other ranks have not written their parts in {PATIENCE:.0f} s; is OUT shared?")
            time.sleep(0.02)


def write(file: Path, tensors: Mapping[str, Rows]) -> None:
    """One rank's part of one kind, under its name once it is on disk."""
    unnamed = file.with_suffix(".partial")
    begins = json.dumps({name: rows.begin for name, rows in tensors.items()})
    save_file({name: rows.values for name, rows in tensors.items()}, unnamed, metadata={"format": "pt", "begins": begins})
    with unnamed.open("rb") as handle:
        os.fsync(handle.fileno())
    unnamed.rename(file)


def name(out: Path, step: int, state: dict[str, Any], keep: int, anchor: int | None) -> None:
    """Give a whole checkpoint its name, in one rename, and remove the older ones."""
    folder, final = partial(out, step), place(out, step)
    with (folder / "state.json").open("w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)
    for old in complete(out)[: -max(keep, 1)]:
        if anchor is None or old != place(out, anchor):
            shutil.rmtree(old)


def complete(out: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first. A half-written one has another name and is not among them."""
    return sorted((out / "state").glob("step-*"))


def load(path: Path) -> Checkpoint:
    """A checkpoint whose tensors are read when they are asked for."""
    return Checkpoint(**{kind: Stored(path, kind) for kind in KINDS}, state=state(path))


def state(path: Path) -> dict[str, Any]:
    """A checkpoint's state.json."""
    try:
        found: dict[str, Any] = json.loads((path / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise MidtrainError(f"{path}: not a checkpoint of ours: {error}") from None
    return found


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and bytes: equal weights, equal digest."""
    import torch

    total = blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """Of a file, or of the configuration, safetensors and distributed checkpoint in a directory."""
    kinds = ("*.safetensors", "config.json", "*.distcp", ".metadata")
    files = [path] if path.is_file() else sorted(file for kind in kinds for file in path.glob(kind))
    total = blake2b(digest_size=16)
    for file in files:
        total.update(file.name.encode())
        with file.open("rb") as handle:
            while block := handle.read(1 << 24):
                total.update(block)
    return total.hexdigest()
