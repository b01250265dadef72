"""The search page in headless Chromium: what a reader would see after the script has run."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import httpx
import pytest

from helpers import ngram_served as tools
from limbeck.infinigram.index import Index
from limbeck.infinigram.service.app import ServiceConfig, make_app
from limbeck.infinigram.service.served import IndexSpec

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
NODE = shutil.which("node")
SCRIPT = Path(__file__).parents[2] / "helpers" / "page_in_node.js"
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed, so no page can be rendered")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folders = tools.build_indexes(tmp_path_factory.mktemp("page"))
    specs = tuple(IndexSpec(name=name, paths=(str(path),)) for name, path in folders.items())
    with tools.running(make_app(ServiceConfig(specs))) as url:
        yield SimpleNamespace(url=url, index=Index.open(folders["words"]), specs=specs, folder=tmp_path_factory.mktemp("profile"))


def rendered(here, url=None, **fields):
    """The page's DOM once it has come to rest, as text."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]
    command += [f"--user-data-dir={here.folder}", f"{url or here.url}/#{urlencode(fields)}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def scripted(here, *actions, url=None, **fields):
    """What the page's script shows after some actions, by element id; run in Node with a stand-in for the document."""
    if NODE is None:
        pytest.skip("Node is not installed, so the page's script cannot be run")
    command = [NODE, str(SCRIPT), url or here.url, urlencode(fields), *actions]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {name: SimpleNamespace(**one) for name, one in json.loads(done.stdout).items()}


def part(dom, tag, name):
    """The inside of the element of an id; its opening tag must not be hidden."""
    found = re.search(rf'<{tag}(?P<attributes>[^>]*\bid="{name}"[^>]*)>(?P<inside>.*?)</{tag}>', dom, re.S)
    assert found is not None, name
    assert "hidden" not in found["attributes"], f"{name} is hidden"
    return found["inside"]


def words(markup):
    return html.unescape(re.sub(r"<[^>]+>", "", markup))


def test_the_page_is_all_here_and_forbids_the_rest(here):
    page = httpx.get(here.url, headers={"Accept": "text/html,application/xhtml+xml"})
    assert (
        page.headers["Content-Type"].startswith("text/html") and "default-src 'none'" in page.headers["Content-Security-Policy"]
    )
    for name in re.findall(r'(?:href|src)="([^"#]+)"', page.text):
        assert httpx.get(f"{here.url}/{name}").status_code == 200, name
    every = page.text + "".join(httpx.get(f"{here.url}/static/{name}").text for name in ("page.js", "page.css"))
    assert not re.findall(r"https?://", every) and "innerHTML" not in every and "eval(" not in every
    assert 'lang="en"' in page.text and 'name="viewport"' in page.text
    for field in re.findall(r'<(?:input|textarea|select)[^>]*id="([^"]+)"', page.text):
        assert f'for="{field}"' in page.text or re.search(rf'<label[^>]*>\s*<input id="{field}"', page.text), field


@in_chromium
def test_a_search_shows_count_next_tokens_and_documents(here):
    dom = rendered(here, index="words", q="boils slowly while the vapour rises")
    count = here.index.count(" boils slowly while the vapour rises")
    assert part(dom, "b", "count") == str(count) == "1" and words(part(dom, "span", "count-unit")) == "time"
    assert words(part(dom, "p", "tokens")).split()[:2] == ["boils", "slowly"]
    bars = re.findall(r"<li>(.*?)</li>", part(dom, "ol", "next"), re.S)
    assert [words(bar) for bar in bars] == [" <100.0 %1"] and "width: 100%" in bars[0]
    documents = part(dom, "ol", "documents")
    assert '<mark class="clause-0"> boils slowly while the vapour rises</mark>' in documents
    assert "&lt;b&gt;into&lt;/b&gt; &amp; the head" in documents  # a document's markup is text
    assert f"{here.index.tokens:,} tokens" in part(dom, "p", "facts")
    assert 'id="alert" class="alert" role="alert" hidden' in dom


@in_chromium
def test_a_search_of_clauses_marks_each(here):
    dom = rendered(here, index="words", q="boils AND lamp OR vapour")
    count, _ = here.index.count_cnf([[" boils"], [" lamp", " vapour"]])
    assert part(dom, "b", "count") == str(count)
    assert {'class="clause-0"', 'class="clause-1"'} <= set(re.findall(r'class="clause-\d"', part(dom, "ol", "documents")))
    assert re.search(r'<section[^>]*id="next-part"[^>]*hidden', dom)


@in_chromium
def test_a_trace_colours_spans(here):
    dom = rendered(here, index="words", trace="zzz boils slowly. A quicksilver lamp burns; 7")
    assert '<button role="tab" id="tab-trace" aria-controls="panel-trace" aria-selected="true"' in dom
    traced = part(dom, "p", "traced-text")
    assert words(traced) == "zzz boils slowly. A quicksilver lamp burns; 7"
    marks = re.findall(r'<span class="rare-\d" tabindex="0" title="1 time" role="button"[^>]*>([^<]*)</span>', traced)
    assert any("quicksilver lamp burns" in mark for mark in marks), traced
    assert "occur" in words(part(dom, "p", "traced-note"))


@in_chromium
def test_a_fault_is_shown_and_keys_are_asked_for(here):
    dom = rendered(here, index="words", q="x" * 9000)
    assert "9,00" in words(part(dom, "p", "alert")) and "characters" in words(part(dom, "p", "alert"))
    with tools.running(make_app(ServiceConfig(here.specs, keys=("k",)))) as url:
        dom = rendered(here, url)
        assert "key" in words(part(dom, "form", "key-form")) and "Authorization" in words(part(dom, "p", "alert"))


@pytest.mark.parametrize("query", ["boils AND ", "boils AND", " AND boils", "AND boils", "boils AND  OR lamp", "boils OR  "])
def test_a_missing_phrase_is_no_search_for_a_space(here, query):
    page = scripted(here, index="words", q=query)
    assert not page["alert"].hidden and "phrase is missing beside AND or OR" in page["alert"].text and page["found"].hidden


def test_clauses_are_read_as_written(here):
    page = scripted(here, index="words", q="boils AND lamp OR vapour")
    assert page["count"].text == str(here.index.count_cnf([[" boils"], [" lamp", " vapour"]])[0]) and page["alert"].hidden
    assert '<mark class="clause-0">' in page["documents"].html and '<mark class="clause-1">' in page["documents"].html
    word = scripted(here, index="words", q="ANDROID")
    assert word["alert"].hidden and word["count"].text == "0"


def test_an_unseen_phrase_shows_what_follows_its_longest_end(here):
    known = "boils slowly while the vapour rises"
    page = scripted(here, index="words", q=f"zebra {known}")
    note = page["next-note"].text
    ids = here.index.tokenizer.encode(f" zebra {known}")
    longest = here.index.infgram_next_tokens(ids)
    assert page["count"].text == "0" and "The whole phrase does not occur" in note
    assert f"{longest.suffix_tokens} tokens" in note and known in note, note
    assert f"{len(longest.ids)} distinct token" in note and "<li>" in page["next"].html


def test_a_whole_document_replaces_its_window(here):
    def shown(*actions):
        page = scripted(here, *actions, index="bytes", q="still")
        return [html.unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page["documents"].html, re.S)]

    long = {text for text in tools.texts() if len(text.encode()) > 160}
    assert not long & set(shown()) and len(long & set(shown("click:Whole document"))) == 1


def test_a_document_is_shown_once(here):
    page = scripted(here, "click:documents-more", "click:documents-more", index="words", q="the")
    numbers = re.findall(r"document (\d+) ·", page["documents"].text)
    assert len(numbers) > 10 and len(numbers) == len(set(numbers))
    assert f"{len(numbers)} documents from {here.index.count(' the'):,} occurrences" in page["documents-note"].text


def test_tokens_of_every_term_of_clauses(here):
    page = scripted(here, index="words", q="boils AND lamp OR vapour")
    assert re.sub(r"\s", "", page["tokens"].text) == "boils·lamp·vapour"


def test_any_case_counts_every_spelling(here):
    assert here.index.count(" The STILL") == here.index.count(" THE STILL") == 0
    page = scripted(here, index="words", q="THE Still", case="any")
    assert page["count"].text == f"{here.index.count(' the still'):,}" != "0" and page["next-part"].hidden
    assert '<mark class="clause-0"> the still</mark>' in page["documents"].html
    as_written = scripted(here, index="words", q="THE Still")
    assert as_written["count"].text == "0"
