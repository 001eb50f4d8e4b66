"""A report as tests see it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path


@dataclass
class Page(HTMLParser):
    """What a test wants to know of a page: tables of text by section, attributes that could load, text."""

    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in ("script", "style", "td", "th"):
            self.open.append(tag)
        if tag == "section":
            self.sections.append(dict(attrs)["id"] or "")
            self.tables[self.sections[-1]] = []
        elif tag == "tr" and self.sections:
            self.tables[self.sections[-1]].append([])
        elif tag in ("td", "th") and self.sections:
            self.tables[self.sections[-1]][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "td", "th"):
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] in (["script"], ["style"]):
            return
        self.text += data
        if self.open and self.sections:
            self.tables[self.sections[-1]][-1][-1] += data.strip()


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text())
    return page
