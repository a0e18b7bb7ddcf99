"""Licences of files and distributions, as SPDX identifiers."""

import re
from collections.abc import Mapping
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

IDENTIFIER = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() -]+?)[ \t]*(?:\*/|-->|$)", re.M)
PHRASES = (  # what a licence text says of itself, the more specific first
    ("PSF-2.0", "PYTHON SOFTWARE FOUNDATION LICENSE"),
    ("Apache-2.0", "Apache License Version 2.0"),
    ("AGPL-3.0-only", "GNU AFFERO GENERAL PUBLIC LICENSE Version 3"),
    ("LGPL-3.0-only", "GNU LESSER GENERAL PUBLIC LICENSE Version 3"),
    ("LGPL-2.1-only", "GNU LESSER GENERAL PUBLIC LICENSE Version 2.1"),
    ("GPL-3.0-only", "GNU GENERAL PUBLIC LICENSE Version 3"),
    ("GPL-2.0-only", "GNU GENERAL PUBLIC LICENSE Version 2"),
    ("MPL-2.0", "Mozilla Public License Version 2.0"),
    ("BSD-3-Clause", "Neither the name of"),
    ("BSD-3-Clause", "may not be used to endorse or promote products derived"),
    ("BSD-2-Clause", "Redistributions in binary form must reproduce the above copyright"),
    ("ISC", "Permission to use, copy, modify, and/or distribute this software"),
    ("MIT", "Permission is hereby granted, free of charge"),
    ("Unlicense", "This is free and unencumbered software released into the public domain"),
    ("CC0-1.0", "CC0 1.0 Universal"),
)
CLASSIFIERS = {
    "MIT License": "MIT", "BSD License": "BSD-3-Clause", "Apache Software License": "Apache-2.0",
    "Python Software Foundation License": "PSF-2.0", "ISC License (ISCL)": "ISC", "The Unlicense (Unlicense)": "Unlicense",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
}  # fmt: skip
NAMES = {
    "mit": "MIT", "mit license": "MIT", "bsd": "BSD-3-Clause", "new bsd": "BSD-3-Clause", "bsd license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause", "apache 2.0": "Apache-2.0", "apache": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0", "apache software license": "Apache-2.0", "psf": "PSF-2.0", "isc": "ISC",
    "mpl 2.0": "MPL-2.0",

}  # fmt: skip
SPDX = re.compile(r"^\(?[A-Za-z0-9.+-]+\)?( (AND|OR|WITH) \(?[A-Za-z0-9.+-]+\)?)*$")
FILES = re.compile(r"^(licen[cs]es?|copying|unlicense)([-_. ](?!(?:py|pyi|c|h|js|ts|go|rs|java|rb)$).*)?$", re.I)


def of_text(text: str) -> str | None:
    """The licence that a text is or names, from its SPDX line or its own words."""
    found = IDENTIFIER.search(text[:4096])
    if found:
        return found.group(1).strip()
    words = " ".join(text[:40_000].split()).lower()
    return next((name for name, phrase in PHRASES if phrase.lower() in words), None)


def of_metadata(about: Mapping[str, str] | Message) -> str | None:
    """What a distribution's METADATA declares: License-Expression, a short License, a classifier."""
    declared = about.get("License-Expression")
    if declared:
        return str(declared).strip()
    short = str(about.get("License") or "").strip()
    if short.lower() in NAMES:
        return NAMES[short.lower()]
    if SPDX.match(short) and short.lower() not in ("unknown", "none", "proprietary") and "-" in short:
        return short
    if len(short) > 60:
        return of_text(short)
    classifiers = about.get_all("Classifier") or [] if isinstance(about, Message) else []
    named = [str(c).rpartition(" :: ")[2] for c in classifiers if str(c).startswith("License ::")]
    return next((CLASSIFIERS[name] for name in named if name in CLASSIFIERS), None)


def metadata(directory: Path) -> Message:
    """The METADATA of a `*.dist-info` directory; empty where it has none."""
    path = directory / "METADATA"
    return BytesParser().parsebytes(path.read_bytes() if path.is_file() else b"")


def of_packages(site: Path) -> dict[str, str]:
    """Top-level module or package in a site-packages directory -> licence of the distribution that installed it."""
    found: dict[str, str] = {}
    for directory in sorted(site.glob("*.dist-info")):
        rights = of_metadata(metadata(directory))
        record = directory / "RECORD"
        if rights is None or not record.is_file():
            continue
        for line in record.read_text(encoding="utf-8", errors="replace").splitlines():
            top = line.split(",")[0].strip('"').split("/")[0]
            if not top.endswith((".dist-info", "..", "__pycache__")):
                found.setdefault(top, rights)
    return found


def of_directory(directory: Path) -> str | None:
    """The licence of a checkout, from the licence file at its top."""
    for path in sorted(directory.iterdir()):
        if path.is_file() and FILES.match(path.name):
            with path.open("rb") as file:
                return of_text(file.read(40_000).decode("utf-8", "replace"))
    return None
