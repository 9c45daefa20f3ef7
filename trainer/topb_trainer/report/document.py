"""Documents of headings, paragraphs, tables and figures, written as Markdown and as one HTML file."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
"""


@dataclass(frozen=True)
class Heading:
    """The title of a section."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table. Every row has as many cells as the head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A drawing with a caption."""

    name: str
    """Name of the file beside the Markdown, without its suffix."""
    caption: str
    svg: str
    """An <svg> element."""


Block = Heading | Paragraph | Table | Figure


_MARKUP = re.compile(
    r"[\\`*~$|]"  # code, emphasis, formulas, cells
    r"|<(?=[A-Za-z/!?])|&(?=#|\w+;)"  # HTML
    r"|(?<!\w)_|_(?!\w)"  # emphasis; inside a word it is text
    r"|\[(?=[^\]]*\][(\[:])"  # links
)
"""The characters that Markdown does not take for text where they stand."""


def as_markdown(blocks: Sequence[Block]) -> str:
    """Return Markdown that links figures as `<name>.svg`."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """Return an HTML page that needs no other file."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Table(head, rows):
            rule = ["---"] + ["---:"] * (len(head) - 1)
            lines = (rule if row is rule else map(_plain, row) for row in (head, rule, *rows))
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Figure(name, caption, _):
            return f"![{_plain(caption)}]({name}.svg)"


def _plain(text: str) -> str:
    """Return Markdown that shows a text as it is, in one line."""
    return _MARKUP.sub(lambda found: "\\" + found.group(), " ".join(text.split()))


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Table(head, rows):
            cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
            lines = [
                "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
            ]
            return "\n".join(
                ["<table>", f"<thead><tr>{cells}</tr></thead>", "<tbody>", *lines, "</tbody></table>"]
            )
        case Figure(_, caption, svg):
            return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"
