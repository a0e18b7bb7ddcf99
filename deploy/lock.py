"""Write requirements.lock: every package that an installation takes, pinned with the hash of its file.

    python deploy/lock.py

Asks pip what it would install under constraints.txt, for this Python and platform, and installs nothing.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """# Every package of `pip install '.[demo,archives,dev]'` with the hash of its file, for CPython 3.11 on Linux x86_64:
#   pip install --require-hashes --no-deps -r requirements.lock
# Made by `make lock`, and made anew when pyproject.toml or constraints.txt changes.
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "--quiet",
            "--report",
            str(report),
        ]
        subprocess.run([*command, "-c", "constraints.txt", ".[demo,archives,dev]"], check=True, cwd=ROOT)
        found = json.loads(report.read_text())["install"]
    lines = []
    for entry in found:
        name = re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower()
        if name != "midtrain-dagster":
            digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
            lines.append(f"{name}=={entry['metadata']['version']} --hash=sha256:{digest}\n")
    (ROOT / "requirements.lock").write_text(HEAD + "".join(sorted(lines)))


if __name__ == "__main__":
    main()
