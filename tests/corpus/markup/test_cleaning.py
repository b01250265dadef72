"""Cleaning of READMEs: golden examples, and properties that hold for any text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.corpus.markup.cleaning import clean_markup, clean_text, without_verbatim
from limbeck.corpus.packages import read_packages

MARKDOWN = """\
<p align="center"><img src="logo.svg" alt="logo"></p>

# Widget

[![CI](https://ci.example/badge.svg)](https://ci.example) ![cov](https://cov.example/x.svg)
<!-- a comment
over lines -->

**Widget** is a _small_ library for [spinning **wheels**](https://example.org/w_(x)) :rocket:
with `<T>` types &amp; snake_case_names.

- [Install](#install)
- [Usage](#usage)

Features:

* Thread safety.
* Fast ~~slow~~ and *correct*
* Works on Linux,
  macOS and Windows

## Installation

Use pip to get it, as always.

## Usage

Spin a wheel like this:

```python
import widget  # not prose
```

| a | b |
|---|---|
| table cells here | are not prose |

> Every wheel turns until it is told to stop.

    indented_code(is_no_prose)

Second title
------------

The end of the story. See the [documentation](https://docs.example) for more.

License
=======

MIT, of course, as always.

[ref]: https://example.org
"""

MARKDOWN_PROSE = """\
Widget is a small library for spinning wheels with <T> types & snake_case_names.

Features:

- Thread safety.
- Fast slow and correct
- Works on Linux, macOS and Windows

Every wheel turns until it is told to stop.

The end of the story."""

RST = """\
======
Widget
======

.. image:: https://img.example/badge.svg
   :target: https://example.org
   :alt: Badge text that is no prose

|build| |cover|

.. |build| image:: https://ci.example/x.svg

**Widget** spins ``wheels`` for `great drivers <https://example.org>`_ and :class:`~driver.Racer` [1]_,
as the manual_ says.

.. note:: Wheels are round in most countries.

Example::

    >>> import widget
    Traceback text that is code

The wheel then turns as follows::

    turn turn turn

+------+------+
| cell | cell |
+------+------+

===== =====
A     B
===== =====
some  cells
===== =====

* one item that is kept
* another item
  that runs on

$ pip install widget

.. code-block:: python

   widget.spin()

Closing words are kept, too.

Changelog
---------

1.0 (2020-01-01)
~~~~~~~~~~~~~~~~

* Nobody wants to read this line here.

.. _manual: https://example.org
"""

RST_PROSE = """\
Widget spins wheels for great drivers and ~driver.Racer, as the manual says.

Wheels are round in most countries.

- one item that is kept
- another item that runs on

Closing words are kept, too."""


@pytest.mark.parametrize(
    ("text", "content_type", "prose"),
    [
        (MARKDOWN, "text/markdown", MARKDOWN_PROSE),
        (MARKDOWN, "text/markdown; charset=UTF-8; variant=GFM", MARKDOWN_PROSE),
        (MARKDOWN, "", MARKDOWN_PROSE),
        (RST, "text/x-rst", RST_PROSE),
        (RST, "", RST_PROSE),
        (RST.replace("\n", "\r\n"), "", RST_PROSE),
        ("Just a plain text\nover two lines.", "text/plain", "Just a plain text over two lines."),
        ("", "text/markdown", ""),
        ("[![a](b)](c)", "text/markdown", ""),
        ("```\nnever closed code is all code", "text/markdown", ""),
        ("1.0.1\n=====\n\nA fix that changed things.\n", "text/x-rst", ""),
    ],
)
def test_golden(text: str, content_type: str, prose: str) -> None:
    assert clean_markup(text, content_type) == prose


def test_plain_text_keeps_its_lines() -> None:
    assert clean_text("\ufeff One  line \r\n\x00two\r") == "One  line\ntwo"


@given(st.text(alphabet=st.sampled_from("ab# *_`[]()<>!|:.=-~\n\\\t>$")), st.sampled_from(["text/markdown", "text/x-rst", ""]))
def test_any_markup_becomes_paragraphs(text: str, content_type: str) -> None:
    prose = clean_markup(text, content_type)
    assert prose == prose.strip()
    assert "\n\n\n" not in prose and "\x00" not in prose and "\ue000" not in prose


@pytest.mark.parametrize(
    ("document", "phrase", "expected"),
    [
        ("Tool. A fast thing. More.", "a Fast thing", "Tool. More."),
        ("Tool is a FAST,\nthing that works. More.", "A fast thing.", "More."),
        ("Breakfast thing. More.", "fast thing", "Breakfast thing. More."),
        ("One. Two. Three. Four.", "Two. Three.", "One. Four."),
        ("- a fast thing\n- other", "A fast thing", "- other"),
        ("Nothing here.", "!!!", "Nothing here."),
        ("A b. A b. C.", "a b", "C."),
    ],
)
def test_summary_is_taken_out(document: str, phrase: str, expected: str) -> None:
    assert without_verbatim(document, phrase) == expected


def words(text: str) -> str:
    return " " + " ".join(re.findall(r"[^\W_]+", text.casefold())) + " "


@given(
    st.lists(st.sampled_from(["fast", "Thing", "is.", "a", "e.g.", "\n\n", "- x", "Stop!", "ﬁne", "İ"]), max_size=30),
    st.lists(st.sampled_from(["fast", "thing", "a", "is"]), min_size=1, max_size=3),
)
def test_summary_is_gone_whatever_the_document(pieces: list[str], phrase: list[str]) -> None:
    assert words(" ".join(phrase)) not in words(without_verbatim(" ".join(pieces), " ".join(phrase)))


def test_installed_packages_hold_prose_without_their_summary() -> None:
    rows = list(read_packages())
    usable = [row for row in rows if row.reason is None]
    assert len({row.origin for row in rows}) == len(rows)
    assert len([row for row in usable if len(row.text) > 200]) >= 50
    for row in usable:
        assert row.reference and words(row.reference) not in words(row.text), row.origin
        assert not re.search(r"\]\(http|!\[|^#{1,6} |^```|^\.\. \w+::|img\.shields", row.text, re.M), row.origin
    for row in rows:
        assert row.reason or row.text
        assert re.fullmatch(r"[A-Za-z0-9._-]+==\S+", row.origin)
