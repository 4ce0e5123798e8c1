"""Reading a page of ours: its elements as a tree, by Python's own parser, and its picture by a decoder of its own."""

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "img", "br", "hr", "link", "input"}


@dataclass
class Node:
    """An element, with what stands in it in order: texts and elements."""

    name: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    inside: list["Node | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(each if isinstance(each, str) else each.text for each in self.inside)

    def all(self, name: str | None = None, **attributes: str) -> list["Node"]:
        """Every element below it of this name and these attributes; of a class one of its words is enough."""
        return [each for each in self._below() if each._fits(name, attributes)]

    def _below(self) -> Iterator["Node"]:
        for each in self.inside:
            if isinstance(each, Node):
                yield each
                yield from each._below()

    def _fits(self, name: str | None, attributes: dict[str, str]) -> bool:
        words = {key.rstrip("_"): value for key, value in attributes.items()}
        return name in (None, self.name) and all(
            value in (self.attributes.get(key) or "").split() for key, value in words.items()
        )


class _Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("document")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        node = Node(tag, dict(attrs))
        self.open[-1].inside.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> within <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def tree(text: str) -> Node:
    """The elements of a page; every one that is opened is closed, in its order."""
    parser = _Tree()
    parser.feed(text)
    parser.close()
    (document,) = parser.open
    return document


def embedded(page: Node) -> Any:
    """The JSON of the page."""
    (script,) = page.all("script", id="json")
    return json.loads(script.text)


def cells(table: Node) -> list[list[str]]:
    """The texts of a table, row by row."""
    return [[cell.text for cell in row.inside if isinstance(cell, Node)] for row in table.all("tr")]


def codes_of(address: str) -> list[bytes]:
    """The numbers of the colours of a picture, row by row."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    width, height = struct.unpack(">II", data[16:24])
    raw, before = zlib.decompress(_chunk(data, b"IDAT")), bytes(width)
    rows = []
    for i in range(height):
        kind, row = raw[i * (width + 1)], bytearray(raw[i * (width + 1) + 1 : (i + 1) * (width + 1)])
        for at in range(width):
            left = row[at - 1] if at else 0
            row[at] = (row[at] + (0, left, before[at])[kind]) % 256
        before = bytes(row)
        rows.append(before)
    return rows


def _chunk(data: bytes, wanted: bytes) -> bytes:
    at = 8
    while True:
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if name == wanted:
            return data[at + 8 : at + 8 + length]
        at += 12 + length
