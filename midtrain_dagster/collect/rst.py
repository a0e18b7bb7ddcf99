"""The part of reStructuredText that docstrings use, as HTML: sections, paragraphs, lists, literal blocks, formulas."""

import re
from html import escape
from textwrap import dedent

UNDERLINE = re.compile(r"^([=\-~^\"'`#*+])\1{2,}\s*$")
BULLET = re.compile(r"^\s*([*\-+]|\(?\d+[.)])\s+")
DIRECTIVE = re.compile(r"^\.\. ([\w-]+)::\s*(.*)$")
FIELD = re.compile(r"^:[\w ]+:\s")
INLINE = (
    (re.compile(r":math:`([^`]+)`"), r'<span class="math notranslate nohighlight">\\(\1\\)</span>'),
    (re.compile(r"``(.+?)``", re.S), r"<code>\1</code>"),
    (re.compile(r":[\w:+-]+:`~?([^`<]+?)(?:\s*&lt;[^`]*&gt;)?`"), r"<code>\1</code>"),
    (re.compile(r"`([^`<]+?)\s*&lt;(https?://[^`]+?)&gt;`_{1,2}"), r'<a href="\2">\1</a>'),
    (re.compile(r"`([^`]+)`_{0,2}"), r"<em>\1</em>"),
    (re.compile(r"\*\*([^*\n]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![\w*])\*([^*\s][^*\n]*)\*(?![\w*])"), r"<em>\1</em>"),
    (re.compile(r"\[(\d+)\]_"), r"<sup>[\1]</sup>"),
)
HIDDEN = {"plot", "only", "index", "currentmodule", "module", "toctree", "autosummary", "image", "figure", "automodule"}


def inline(text: str) -> str:
    """Marks inside a paragraph; every other character is escaped."""
    written = escape(text, quote=False)
    for pattern, replacement in INLINE:
        written = pattern.sub(replacement, written)
    return written


def html(text: str, level: int = 2) -> str:
    """A docstring, its indentation cleaned, as HTML; headings start at `level`. What is not understood is a paragraph."""
    out: list[str] = []
    literal = False
    for block in _blocks(text.expandtabs().split("\n")):
        indented = block[0].startswith(" ")
        if literal and indented:
            out.append(f"<pre>{escape(dedent(chr(10).join(block)), quote=False)}</pre>")
            literal = False
            continue
        literal = False
        if len(block) > 1 and UNDERLINE.match(block[1]) and not indented:
            out.append(f"<h{level}>{inline(block[0].strip())}</h{level}>")
            block = block[2:]
            if not block:
                continue
        written, literal = _block(block)
        out.append(written)
    return "\n".join(part for part in out if part)


def _blocks(lines: list[str]) -> list[list[str]]:
    """Runs of lines between empty ones; what is indented below a literal mark or a directive stays one block."""
    blocks: list[list[str]] = []
    current: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            current.append(line.rstrip())
        elif current:
            last = blocks[-1] if blocks else [""]
            literal = len(blocks) > 1 and (blocks[-2][-1].endswith("::") or DIRECTIVE.match(blocks[-2][0]))
            if current[0].startswith(" ") and last[0].startswith(" ") and literal:
                last += ["", *current]
            else:
                blocks.append(current)
            current = []
    return blocks


def _block(block: list[str]) -> tuple[str, bool]:
    """One block as HTML, and whether a literal block follows it."""
    first = block[0].strip()
    directive = DIRECTIVE.match(first)
    if directive:
        return _directive(directive.group(1), directive.group(2), block[1:])
    if first.startswith(">>>"):
        return f"<pre>{escape(dedent(chr(10).join(block)), quote=False)}</pre>", False
    if first.startswith("..") and not first.startswith("..."):
        cited = re.match(r"^\.\. \[(\w+)\]\s+(.*)$", first)
        rest = " ".join(line.strip() for line in block[1:])
        return (f"<p>[{cited.group(1)}] {inline(cited.group(2) + ' ' + rest)}</p>" if cited else ""), False
    if BULLET.match(block[0]):
        return _list(block), False
    if _defines(block):
        return _definitions(block), False
    text = " ".join(line.strip() for line in block)
    literal = text.endswith("::")
    text = text[:-2].rstrip() + ":" if literal else text
    return (f"<p>{inline(text)}</p>" if text != ":" else ""), literal


def _directive(name: str, argument: str, body: list[str]) -> tuple[str, bool]:
    inside = "\n".join(dedent("\n".join(body)).split("\n"))
    if name == "math":
        formula = escape(f"{argument} {inside}".strip(), quote=False)
        return f'<div class="math notranslate nohighlight">\\[{formula}\\]</div>', False
    if name in ("code-block", "code", "sourcecode", "parsed-literal"):
        return "", True
    if name in HIDDEN:
        return "", False
    titles = {
        "versionadded": "New in version",
        "versionchanged": "Changed in version",
        "deprecated": "Deprecated since version",
    }
    title = f"{titles[name]} {argument}" if name in titles else f"{name.capitalize()}: {argument}".rstrip(": ")
    said = inline(" ".join(inside.split()))
    return f'<div class="admonition"><p class="admonition-title">{inline(title)}</p><p>{said}</p></div>', False


def _list(block: list[str]) -> str:
    items: list[str] = []
    for line in block:
        if BULLET.match(line):
            items.append(BULLET.sub("", line))
        else:
            items[-1] += " " + line.strip()
    return "<ul>" + "".join(f"<li>{inline(item)}</li>" for item in items) + "</ul>"


def _defines(block: list[str]) -> bool:
    """numpydoc's parameter lists: `name : type`, and what it means indented below."""
    return len(block) > 1 and not block[0].startswith(" ") and block[1].startswith("  ") and not block[0].endswith((".", "::"))


def _definitions(block: list[str]) -> str:
    entries: list[tuple[str, list[str]]] = []
    for line in block:
        if not line.startswith(" "):
            entries.append((line, []))
        else:
            entries[-1][1].append(line.strip())
    rows = "".join(f"<dt>{inline(term)}</dt><dd><p>{inline(' '.join(lines))}</p></dd>" for term, lines in entries)
    return f"<dl>{rows}</dl>"
