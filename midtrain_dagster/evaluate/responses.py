"""What a model answered, kept on disk line by line: after a kill nothing is asked twice."""

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any


def request_key(kind: str, *parts: Any) -> str:
    """The name of a request: its kind and everything that decides the answer."""
    text = json.dumps([kind, *parts], ensure_ascii=False, sort_keys=True, default=str)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def model_digest(model: Path | str, *settings: Any) -> str:
    """Names a model's answers: hash of the directory's files (or of a hub name), and settings."""
    digest = blake2b(json.dumps([str(s) for s in settings]).encode(), digest_size=16)
    path = Path(model)
    if not path.is_dir():
        digest.update(str(model).encode())
        return digest.hexdigest()
    for file in sorted(p for p in path.iterdir() if p.suffix in (".json", ".safetensors", ".model", ".txt", ".jinja")):
        digest.update(file.name.encode())
        with file.open("rb") as content:
            while block := content.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


class Responses:
    """A log of answers: one JSON line each, appended and flushed; a line that a kill cut short is ignored and asked again."""

    def __init__(self, path: Path | None):
        self._known: dict[str, Any] = {}
        self._file = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        broken = False
        if path.exists():
            with path.open(encoding="utf-8") as file:
                for line in file:
                    try:
                        key, value = json.loads(line)
                        self._known[key] = value
                    except ValueError:
                        broken = True
        self._file = path.open("a", encoding="utf-8")
        if broken:
            self._file.write("\n")

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def __len__(self) -> int:
        return len(self._known)

    def add(self, answers: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Keep answers, durably before this returns as far as the process is concerned."""
        answers = dict(answers)
        self._known.update(answers)
        if self._file is not None:
            self._file.writelines(json.dumps([key, value]) + "\n" for key, value in answers.items())
            self._file.flush()
