"""What is asked of every HTML page: well-formed, in need of nothing else, nothing that runs."""

import collections
import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img"}
HEAVY = {"script", "iframe", "object", "embed", "base", "form", "foreignobject"}
URLS = {"src", "href", "srcset", "action", "data", "poster", "background", "formaction", "ping"}


class Page(HTMLParser):
    """A page that is read strictly.

    Attributes:
        headings: the texts of its h1 and h2.
        tables: by caption, a list of rows, each the texts of its cells.
        words: all text outside of head and pictures.
        pictures: what its pictures show, in words.
        notes: the title of each cell that has one.
    """

    def __init__(self, content):
        super().__init__(convert_charrefs=True)
        self.headings, self.tables, self.pictures, self.notes = [], {}, [], []
        self.words, self._open, self._ids, self._used = "", [], [], []
        text = content.decode()
        assert text.startswith("<!DOCTYPE html>\n<html lang=")
        self.feed(text)
        self.close()
        assert not self._open, "elements are left open"
        assert max(collections.Counter(self._ids).values()) == 1, "an id is given twice"
        assert set(self._used) <= set(self._ids), "a picture refers to nothing"

    def handle_starttag(self, tag, attrs):
        assert tag not in HEAVY
        attributes = dict(attrs)
        assert len(attributes) == len(attrs)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in URLS:
                is_picture = tag == "img" and value.startswith("data:image/png;base64,")
                assert value == "data:," or value.startswith("#") or is_picture, value[:80]
            self._used += re.findall(r"^#(.+)" if name in URLS else r"url\(#([^)]+)\)", value)
            if not value.startswith("data:image/png;base64,"):
                assert not re.search(r"url\((?!#)|//|@import", value)
        if "id" in attributes:
            self._ids.append(attributes["id"])
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["viewbox"]
            self.pictures.append(attributes["aria-label"])
        if tag == "img":
            self.pictures.append(attributes["alt"])
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if "title" in attributes:
            self.notes.append(attributes["title"])
        if tag == "tr":
            self._row = []
        if tag in ("th", "td"):
            self._row.append("")
        if tag in ("h1", "h2"):
            self.headings.append("")
        if tag == "caption":
            self._caption = ""
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "caption":
            assert self._caption not in self.tables
            self.tables[self._caption] = []
        if tag == "tr":
            self.tables[self._caption].append(self._row)

    def handle_data(self, data):
        if "style" in self._open:
            assert not re.search(r"url\(|@import|//", data)
        if not {"head", "svg"} & set(self._open):
            self.words += data
        if {"th", "td"} & set(self._open):
            self._row[-1] += data
        elif "caption" in self._open:
            self._caption += data
        elif self._open and self._open[-1] in ("h1", "h2"):
            self.headings[-1] += data

    def handle_comment(self, data):
        raise AssertionError("a comment")

    def unknown_decl(self, data):
        raise AssertionError(f"an unknown declaration: {data}")
