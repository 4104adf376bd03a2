"""Pages: templates that escape everything, and the policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from debiasbench.common.wording import printable
from debiasbench.leaderboard.figures import STYLE, colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.leaderboard.site.table import Line, Link

HERE = Path(__file__).parent


def page(template: str, **values: Any) -> str:
    """Fill a template, which is a whole page; text is escaped for HTML."""
    return _environment().get_template(template).render(values)


def policy(style: str, script: str) -> str:
    """Return a content security policy that allows one style, one script, and no request.

    Both are known by the hash of their exact bytes. `data:` is for the empty icon, without which
    browsers ask the server for one.
    """
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _heat_style() -> str:
    """Return the colours of heat maps; hatched squares have stripes of their letters' colour."""
    lines = []
    for i, shade in enumerate(colours.HEAT):
        letters = "#fff" if i in colours.WHITE_TEXT else "#000"
        lines.append(f".heat .h{i}{{background-color:{shade};color:{letters}}}")
    stripes = "repeating-linear-gradient(135deg,transparent 0 6px,rgb(128 128 128/.35) 6px 7px)"
    return "\n".join([*lines, f".heat .few{{background-image:{stripes}}}", ""])


def _finalized(value: Any) -> Any:
    """Make control characters and marks of direction visible; markup of ours stays."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@lru_cache(maxsize=1 << 16)
def escaped(text: str) -> str:
    """Return text as templates write it."""
    return str(escape(printable(text)))


def lines(table: Sequence[Line]) -> Markup:
    """Write the rows of a section of a table; in a template, this would take most of the time."""
    return Markup("".join(map(_line, table)))


def _line(line: Line) -> str:
    name = _link(line.name)
    parts = ['<tr><th scope="row">', f"<strong>{name}</strong>" if line.strong else name]
    if line.more:
        parts.append(f' <span class="more">{escaped(line.more)}</span>')
    for badge in line.badges:
        title = f' title="{escaped(badge.title)}"' if badge.title else ""
        parts.append(f' <span class="badge"{title}>{escaped(badge.text)}</span>')
    parts.append("</th>")
    for cell in line.cells:
        key = cell.key
        value = f' data-v="{escaped(key)}"' if key else ""
        title = f' title="{escaped(cell.title)}"' if cell.title else ""
        text = escaped(cell.text)
        text = f"<strong>{text}</strong>" if cell.strong else text
        links = " ".join(map(_link, cell.links))
        parts.append(f"<td{value}{title}>{text}{escape(cell.picture)}{links}</td>")
    parts.append("</tr>\n")
    return "".join(parts)


def _link(one: Link) -> str:
    text = escaped(one.text)
    title = f' title="{escaped(one.title)}"' if one.title else ""
    if one.address:
        return f'<a href="{escaped(one.address)}"{title}>{text}</a>'
    return f"<span{title}>{text}</span>" if title else text


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (HERE / name for name in ("style.css", "script.js"))
    texts = [style.read_text("utf-8") + _heat_style() + STYLE, script.read_text("utf-8")]
    # text of ours, which is not escaped; it must not hold the end of its own element
    made.globals |= {
        "style": Markup(texts[0]),
        "script": Markup(texts[1]),
        "policy": policy(*texts),
        "lines": lines,
    }
    return made
