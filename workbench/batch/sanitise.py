"""HTML from a notebook made harmless: no scripts, nothing fetched from another host, no tag left open."""

import html
import re
from html.parser import HTMLParser

TAGS = frozenset(
    """
    a abbr b blockquote br caption center cite code col colgroup dd del details dfn div dl dt em figcaption figure font
    h1 h2 h3 h4 h5 h6 hr i img input ins kbd label li mark ol p pre q s samp section small span strong sub summary sup
    table tbody td tfoot th thead time tr tt u ul var wbr

    annotation maction math menclose merror mfenced mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts
    mroot mrow ms mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover semantics none

    circle clippath defs desc ellipse g line lineargradient path polygon polyline radialgradient rect stop svg symbol
    text title tspan use
    """.split()  # noqa: SIM905 - prose, MathML, SVG
)
EMPTY = frozenset({"br", "col", "hr", "img", "input", "wbr"})
DROPPED = frozenset({"script", "iframe", "object", "embed", "applet", "template", "noscript", "head", "title", "frame"})
_LINKS = ("href", "xlink:href")
_BANNED = re.compile(
    r"^(on|srcset$|srcdoc$|action$|formaction$|background$|ping$|poster$|border$|data$|slot$|is$|nonce$|http)"
)
_PICTURE = re.compile(r"^data:image/(png|jpe?g|gif|webp|svg\+xml)[;,]", re.IGNORECASE)
_LINK = re.compile(r"^(https?:|mailto:|#|[^:]*$)", re.IGNORECASE)
_FETCH = re.compile(r"@import[^;]*;?|(?:url|image-set|image|src)\s*\((?!\s*['\"]?(?:data:|#))[^)]*\)?", re.IGNORECASE)


def sanitise(text: str) -> str:
    """The HTML with only harmless tags and attributes, every tag closed."""
    cleaner = _Cleaner()
    cleaner.feed(text)
    cleaner.close()
    return cleaner.result()


def has_substance(text: str) -> bool:
    """Whether anything is left to look at: words, a picture, a rule."""
    return bool(re.sub(r"<style>.*?</style>|<(?!img|svg|hr|input)[^>]*>", "", text, flags=re.DOTALL).strip())


def harmless_css(text: str) -> str:
    """Style rules that fetch nothing and cannot leave their element."""
    return _FETCH.sub("", text).replace("</", "<\\/")


class _Cleaner(HTMLParser):
    """Rewrites HTML tag by tag; what it does not know loses its tag and keeps its words."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self._out: list[str] = []
        self._open: list[str] = []
        self._skipped: list[str] = []  # dropped elements that we are in
        self._style: list[str] | None = None

    def result(self) -> str:
        return "".join(self._out) + "".join(f"</{tag}>" for tag in reversed(self._open))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in DROPPED and not (tag == "title" and "svg" in self._open):
            if tag not in ("embed", "frame"):
                self._skipped.append(tag)
        elif self._skipped:
            return
        elif tag == "style":
            self._style = []
        elif tag in TAGS:
            self._start(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._skipped:
            del self._skipped[self._skipped.index(tag) :]
        elif tag == "style" and self._style is not None:
            # The rules hold for the element around them alone.
            self._out.append(f"<style>@scope {{ {harmless_css(''.join(self._style))} }}</style>")
            self._style = None
        elif not self._skipped and tag in self._open:
            while self._open:
                closed = self._open.pop()
                self._out.append(f"</{closed}>")
                if closed == tag:
                    break

    def handle_data(self, data: str) -> None:
        if self._style is not None:
            self._style.append(data)
        elif not self._skipped:
            self._out.append(html.escape(data, quote=False))

    def handle_entityref(self, name: str) -> None:
        self._reference(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._reference(f"&#{name};")

    def _reference(self, text: str) -> None:
        if self._style is None and not self._skipped:
            self._out.append(text)

    def _start(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "img" and not _PICTURE.match(given.get("src", "").strip()):
            named = html.escape(given.get("alt") or given.get("src", ""))
            self._out.append(f'<span class="left-out">[picture not in this file: {named}]</span>')
            return
        if tag == "input":
            given = {"type": "checkbox", **given}
            if given["type"] != "checkbox":
                return
        kept = "".join(self._attribute(tag, name, value) for name, value in given.items())
        outside = tag == "a" and given.get("href", "").startswith("http")
        self._out.append(f"<{tag}{kept}{' rel=noreferrer' if outside else ''}>")
        if tag not in EMPTY:
            self._open.append(tag)

    @staticmethod
    def _attribute(tag: str, name: str, value: str) -> str:
        if _BANNED.match(name) or not re.fullmatch(r"[a-z][a-z0-9:_-]*", name) or name == "rel":
            return ""
        if name == "src" and tag != "img":
            return ""
        if name in _LINKS and not (_LINK.match(value.strip()) if tag == "a" else value.startswith("#")):
            return ""
        if name == "style":
            value = _FETCH.sub("", value)
        if tag != "a" and re.search(r"url\s*\(\s*['\"]?\s*(?!#)", value, re.IGNORECASE):
            return ""
        return f' {name}="{html.escape(value)}"'
