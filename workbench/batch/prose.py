"""A notebook's markdown as HTML: formulas as MathML, headings collected for the table of contents."""

import html
import re
from typing import NamedTuple

import mistune
from mistune.renderers.html import HTMLRenderer

from workbench.batch.sanitise import sanitise

PLUGINS = ("table", "strikethrough", "footnotes", "task_lists", "math", "def_list")


class Heading(NamedTuple):
    """An entry of the table of contents."""

    level: int
    text: str  # plain text
    anchor: str


class Prose:
    """Renders markdown cells of one page; `headings` grows as it goes, `title` is the first level-1 heading."""

    def __init__(self) -> None:
        self.title = ""
        self.headings: list[Heading] = []
        self._markdown = mistune.create_markdown(renderer=_Renderer(self), plugins=list(PLUGINS))

    def render(self, text: str, attachments: dict | None = None) -> str:
        """One markdown cell as harmless HTML; pictures attached to the cell are embedded."""
        for name, bundle in (attachments or {}).items():
            for kind, content in bundle.items():
                text = text.replace(f"attachment:{name}", f"data:{kind};base64,{''.join(content)}")
        return sanitise(self._markdown(text))

    def place(self, level: int, marked_up: str) -> str:
        """A heading, with an anchor; the page's own title takes the first level-1 heading."""
        words = html.unescape(re.sub(r"<[^>]+>", "", marked_up)).strip()
        if level == 1 and not self.title and not self.headings:
            self.title = words
            return ""
        level = max(2, level)
        slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "section"
        taken = {heading.anchor for heading in self.headings}
        anchor, count = slug, 2
        while anchor in taken:
            anchor, count = f"{slug}-{count}", count + 1
        self.headings.append(Heading(level, words, anchor))
        return f'<h{level} id="{anchor}">{marked_up}</h{level}>\n'


class _Renderer(HTMLRenderer):
    """Mistune's HTML, with our headings, tables and formulas."""

    def __init__(self, prose: Prose):
        super().__init__(escape=False)
        self._prose = prose

    def heading(self, text: str, level: int, **attrs: object) -> str:
        return self._prose.place(level, text)

    def safe_url(self, url: str) -> str:
        return url  # the sanitiser judges

    def sanitize_url(self, url: str) -> str:
        return html.escape(url)

    def inline_math(self, text: str) -> str:
        return formula(text, "inline")

    def block_math(self, text: str) -> str:
        return f'<div class="math">{formula(text, "block")}</div>\n'


def formula(latex: str, display: str) -> str:
    """LaTeX as MathML; as code where it cannot be translated."""
    from latex2mathml.converter import convert

    try:
        return convert(html.unescape(latex), display=display).replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")
    except Exception:  # whatever a translator of half of LaTeX raises: the source is readable too
        return f"<code>{html.escape(latex)}</code>"
