"""The pieces of a self-contained HTML page: no script, no font, no link, nothing from outside.

Every function takes plain text and escapes it; ``figure`` alone takes markup (the SVG that
``canvas.svg`` made). A content security policy in the page forbids whatever might slip through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.human import NOTHING

__all__ = [
    "definitions",
    "figure",
    "flat",
    "page",
    "paragraph",
    "preformatted",
    "section",
    "side_by_side",
    "table",
    "tiles",
    "write",
]

_CSS = """
:root { color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f8f9; --ink: #1c2126; --muted: #5d6975; --line: #e1e5e9;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b9578f; --c4: #e69f00; --c5: #56b4e9;
  --c6: #6b7280; --warn: #a33b00; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15191d; --panel: #1d2328; --ink: #e6eaee; --muted: #9aa6b2; --line: #2e363d;
  --c0: #4aa8e0; --c1: #f0803c; --c2: #2fc096; --c3: #e39ac5; --c4: #f0b429; --c5: #8fd0f5;
  --c6: #a3adb8; --warn: #ff9a5c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.2rem 1.5rem 4rem; max-width: 68rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans",
  Roboto, Arial, sans-serif; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
p { margin: .3rem 0; } .lead, .note { color: var(--muted); } .warn { color: var(--warn); }
.tiles { display: grid; gap: .7rem; margin: 1.5rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(9.4rem, 1fr)); }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem .8rem; }
.tile b { display: block; font-size: 1.4rem; font-weight: 650; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: .86rem; display: block; }
.pair { display: grid; column-gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
figure { margin: 1.8rem 0 0; } .plot, .plot svg { display: block; width: 100%; height: auto; }
.scroll { overflow: auto; max-height: 34rem; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .34rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
th { position: sticky; top: 0; background: var(--panel); color: var(--muted); font-weight: 600; }
th { white-space: normal; vertical-align: bottom; }
th.text, td.text { text-align: left; }
td.long { white-space: normal; overflow-wrap: break-word; min-width: 12rem; max-width: 30rem; }
td.name { font-weight: 600; }
dl { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: .2rem 1.5rem;
  margin: 0; font-size: .9rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem;
  padding: .8rem 1rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .86rem/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; margin: 0; }
@media print { :root { color-scheme: light; --paper: #ffffff; --panel: #ffffff; --ink: #000000;
    --muted: #444444; --line: #cccccc; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b9578f;
    --c4: #e69f00; --c5: #56b4e9; --c6: #6b7280; --warn: #a33b00; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; max-height: none; border: 0; } th { position: static; }
  th, td { padding: .2rem .4rem; } figure, .tile, tr { break-inside: avoid; }
  h2 { break-after: avoid; } }
"""

_LONG = 40
"""Characters of a cell that may be broken into lines."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, lead: str, body: Iterable[str]) -> str:
    """Return the whole document; ``body`` is markup made by the functions below."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{_text(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f'<h1>{_text(title)}</h1>\n<p class="lead">{_text(lead)}</p>\n'
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Return a heading and what belongs under it; "" where there is nothing."""
    inside = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{_text(title)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(text: str, kind: str = "note") -> str:
    """Return a paragraph: "note" for what explains, "warn" for what went wrong."""
    return f'<p class="{kind}">{_text(text)}</p>'


def tiles(values: Sequence[tuple[str, str, str]]) -> str:
    """Return the row of big numbers: (value, name, remark)."""
    boxes = (
        f'<div class="tile"><b>{_text(value)}</b>{_text(name)}<span>{_text(remark)}</span></div>'
        for value, name, remark in values
    )
    return f'<div class="tiles">{"".join(boxes)}</div>'


def figure(markup: str, caption: str) -> str:
    """Return a picture; ``markup`` is trusted, ``caption`` is for those who cannot see it."""
    labelled = markup.replace("<svg ", f'<svg aria-label="{_text(caption)}" ', 1)
    return f"<figure>{labelled}</figure>"


def side_by_side(figures: Sequence[str]) -> str:
    """Return pictures that belong together, beside each other where the window is wide enough."""
    return f'<div class="pair">{"".join(figures)}</div>' if len(figures) > 1 else "".join(figures)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    text: Sequence[int] = (),
    name: int | None = None,
) -> str:
    """Return a table; columns in ``text`` hold words (left), column ``name`` stands out."""

    def cell(tag: str, at: int, value: str) -> str:
        words, cell = at in text, tag == "td"
        long = words and cell and len(value) > _LONG
        kinds = " ".join(["text"] * words + ["long"] * long + ["name"] * (cell and at == name))
        attribute = f' class="{kinds}"' if kinds else ""
        return f"<{tag}{attribute}>{_text(value)}</{tag}>"

    head = "".join(cell("th", at, value) for at, value in enumerate(columns))
    body = "\n".join(
        f"<tr>{''.join(cell('td', at, value) for at, value in enumerate(row))}</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def definitions(values: Mapping[str, str]) -> str:
    """Return a list of names and values; "" where it is empty."""
    items = "".join(
        f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in values.items()
    )
    return f"<dl>{items}</dl>" if items else ""


def preformatted(text: str) -> str:
    """Return a block of text such as a command."""
    return f"<pre>{_text(text)}</pre>"


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _text(value: str) -> str:
    """Escape; show control, direction and surrogate characters, which HTML may not hold."""
    return escape(_CONTROL.sub(lambda found: ascii(found[0])[1:-1], value), quote=True)


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return nested settings as ``definitions`` takes them, e.g. "training.lr" and "0.1"."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{key}.")
        elif value is None:
            found[f"{before}{key}"] = NOTHING
        else:
            found[f"{before}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return found


def write(path: Path, text: str) -> Path:
    """Write a page and return where.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error}") from error
    return path
