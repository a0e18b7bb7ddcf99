"""The record of a run, step by step: steps.jsonl, and TensorBoard files where the plan asks for them."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from midtrain_dagster.errors import MidtrainError

SCALARS = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu", "memory_gb", "tokens")


class StepLog:
    """Appends to OUT/steps.jsonl. Records after `step`, whose work was lost, are cut off first."""

    def __init__(self, out: Path, step: int, tensorboard: bool = False):
        self._file = (out / "steps.jsonl").open("a+b")
        self._file.seek(0)
        lines = self._file.readlines()[:step]
        self._file.truncate(sum(map(len, lines)))
        self.records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self._board = summary_writer(out / "tensorboard", step) if tensorboard else None

    def add(self, record: dict[str, Any]) -> None:
        """Keep one record, on disk at once."""
        self.records.append(record)
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        if self._board is not None:
            for name in SCALARS:
                if record[name] is not None:
                    self._board.add_scalar(f"train/{name}", record[name], record["step"])
            for name, loss in record["components"].items():
                if loss is not None:
                    self._board.add_scalar(f"components/{name}", loss, record["step"])

    def validated(self, validations: list[dict[str, Any]]) -> None:
        """Show losses on held-out text beside the others; steps.jsonl does not hold them, the summary does."""
        if self._board is None:
            return
        for found in validations:
            for name, values in found["sets"].items():
                self._board.add_scalar(f"validation/{name}", values["loss"], found["step"])

    def __enter__(self) -> "StepLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


class Unlogged(StepLog):
    """What the other ranks have in its place: it remembers, and writes nothing."""

    def __init__(self) -> None:
        self.records = []

    def add(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def validated(self, validations: list[dict[str, Any]]) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


def summary_writer(folder: Path, step: int) -> Any:
    """TensorBoard's writer; events after `step` of an earlier attempt are hidden. MidtrainError where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MidtrainError("training.tensorboard: TensorBoard is not installed: pip install tensorboard") from None
    return SummaryWriter(str(folder), purge_step=step + 1)
