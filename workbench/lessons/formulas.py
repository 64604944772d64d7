"""Formulas as MathML, which browsers draw themselves: pages need no script and no network for them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from workbench.errors import WorkbenchError

BRACKETS = {")": "(", "]": "[", "}": "{", "⟩": "⟨", "|": "|", "‖": "‖"}


def mathml(tex: str, display: str) -> str:
    """A formula; display: inline or block. WorkbenchError, with the formula, if it cannot be converted."""
    from latex2mathml.converter import convert

    try:
        drawn = convert(tex.strip(), display=display)
    except Exception as e:  # the converter's exceptions have no common root
        raise WorkbenchError(f"the formula ${tex.strip()}$ has no MathML ({type(e).__name__})") from None
    if unknown := re.search(r">\s*(\\[A-Za-z]+)", drawn):
        raise WorkbenchError(f"the formula ${tex.strip()}$ has no MathML: {unknown[1]} is not known")
    tree = ElementTree.fromstring(drawn.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', ""))
    for mend in (_group, _polish):
        for row in list(tree.iter()):
            mend(row)
    return ElementTree.tostring(tree, encoding="unicode")


def _group(row: ElementTree.Element) -> None:
    """An exponent belongs to everything since the bracket opened, not, as converted, to the closing bracket alone."""
    for raised in [one for one in row if one.tag in ("msub", "msup", "msubsup") and one[0].text in BRACKETS]:
        at, depth = list(row).index(raised), 1
        for start in reversed(range(at)):
            depth -= (row[start].text == BRACKETS[raised[0].text]) or -(row[start].text == raised[0].text)
            if not depth:
                base, inside = ElementTree.Element("mrow"), row[start:at]
                for one in inside:
                    row.remove(one)
                base.extend([*inside, raised[0]])
                raised[0] = base
                break


def _polish(row: ElementTree.Element) -> None:
    """What the converter leaves to browsers, and they do otherwise than TeX: no space around bars and slashes, a thin
    one between a function's name and a bare neighbour; bold letters; braces below, which few fonts can stretch."""
    for at, one in reversed(list(enumerate(row))):
        if one.tag == "mo" and one.text in ("|", "/"):
            one.set("lspace", "0")
            one.set("rspace", "0")
        if one.get("mathvariant") == "bold":  # of the variants browsers know normal only
            one.set("mathvariant", "normal")
            one.set("style", "font-weight: bold")
        if one.tag == "munder" and one[0].tag == "munder" and one[0][1].text == "⏟":
            one[0] = one[0][0]
            one[0].set("style", "border-bottom: 1px solid; padding-bottom: 0.2em")
        named = one[0] if one.tag in ("msub", "msup") else one
        if named.tag not in ("mi", "mo") or not re.fullmatch("[A-Za-z]{2,}", named.text or ""):
            continue
        named.tag = "mi"
        for side in (at + 1, at - 1) if row.tag in ("math", "mrow") else ():
            beside = row[side].tag if 0 <= side < len(row) else "mo"
            if beside not in ("mo", "mspace"):
                row.insert(max(side, at), ElementTree.Element("mspace", width="0.167em"))
