"""Mathematics in HTML, written out as LaTeX before extraction: extractors drop scripts, and flatten MathML to `x2`."""

from typing import Any

MATHML = "{http://www.w3.org/1998/Math/MathML}"
FENCED = {"mfrac": "\\frac{%s}{%s}", "msup": "{%s}^{%s}", "msub": "{%s}_{%s}", "mover": "\\overset{%s}{%s}"}
FENCED |= {"munder": "{%s}_{%s}", "mroot": "\\sqrt[%s]{%s}", "msubsup": "{%s}_{%s}^{%s}", "munderover": "{%s}_{%s}^{%s}"}
SWAPPED = ("mover", "mroot")  # LaTeX names the second child first


def write_out(tree: Any) -> int:
    """Replace every formula of an lxml HTML tree by `$…$` or `$$…$$` in its text; returns how many there were.

    Known forms: MathML (its TeX annotation where it has one), MathJax 2 `<script type="math/tex">`, KaTeX (whose
    visible copy goes), images whose class says that their alternative text is TeX.
    """
    count = 0
    for block in tree.xpath("//div[contains(concat(' ', @class, ' '), ' math ')]"):
        block.tag = "p"  # extractors drop a short division between paragraphs, and with it the formula
    for copy in tree.xpath("//*[contains(concat(' ', @class, ' '), ' katex-html ')]"):
        _replace(copy, "")
    for script in tree.xpath("//script[starts-with(@type, 'math/tex')]"):
        _replace(script, _fenced(script.text or "", "mode=display" in script.get("type")))
        count += 1
    for node in tree.xpath("//math"):
        _replace(node, _fenced(translated(node), node.get("display") == "block"))
        count += 1
    for image in tree.xpath(
        "//img[@alt and (contains(@class, 'tex') or contains(@class, 'math') or contains(@class, 'latex'))]"
    ):
        # Wikipedia shows an image beside the MathML that was written out above
        if "mwe-math" not in image.get("class"):
            count += 1
        _replace(image, _fenced(image.get("alt"), False) if "mwe-math" not in image.get("class") else "")
    return count


def _fenced(latex: str, display: bool) -> str:
    latex = " ".join(latex.split()).removeprefix("{\\displaystyle ").strip() if latex else ""
    if latex.count("}") > latex.count("{"):  # the closing brace of \displaystyle
        latex = latex[: latex.rindex("}")].strip()
    if not latex:
        return ""
    return f" $${latex}$$ " if display else f" ${latex}$ "


def _replace(node: Any, text: str) -> None:
    """Put text in the place of an element, keeping what follows it."""
    parent = node.getparent()
    if parent is None:
        return
    text += node.tail or ""
    before = node.getprevious()
    if before is not None:
        before.tail = (before.tail or "") + text
    else:
        parent.text = (parent.text or "") + text
    parent.remove(node)


def translated(node: Any) -> str:
    """MathML as LaTeX: the annotation if the author gave one, else translated element by element."""
    for annotation in node.iter("annotation"):
        if "tex" in (annotation.get("encoding") or "").lower():
            return annotation.text or ""
    if node.get("alttext"):
        return str(node.get("alttext"))
    return _element(node)


def _element(node: Any) -> str:
    name = str(node.tag).removeprefix(MATHML)
    if name.startswith("annotation"):
        return ""
    children = [_element(child) for child in node if isinstance(child.tag, str)]
    if name in FENCED and len(children) == FENCED[name].count("%s"):
        return FENCED[name] % tuple(reversed(children) if name in SWAPPED else children)
    if name == "msqrt":
        return "\\sqrt{" + " ".join(children) + "}"
    if name == "mtr":
        return " & ".join(children)
    if name == "mtable":
        return "\\begin{matrix} " + " \\\\ ".join(children) + " \\end{matrix}"
    own = (node.text or "").strip()
    if name == "mtext" and own:
        return f"\\text{{{own}}}"
    return " ".join(part for part in (own, *children) if part)
