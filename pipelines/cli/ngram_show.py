"""Shared by the commands `limbeck ngram ...`: arguments, queries, text output, progress bars."""

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from limbeck.corpus.amounts import counted
from limbeck.corpus.errors import LimbeckError
from limbeck.infinigram.build import Settings
from limbeck.infinigram.readers import behind
from limbeck.infinigram.service import answers, models
from limbeck.infinigram.service.limits import Limits
from limbeck.infinigram.service.served import IndexSpec, Served, open_served
from limbeck.infinigram.tables import Report

Model = TypeVar("Model", bound=BaseModel)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MOST = 1 << 40
LIMITS = Limits(query_tokens=_MOST, text_tokens=_MOST, batch_tokens=_MOST, shown_tokens=_MOST)
_PLAIN_SECONDS = 10.0
_SERVICE_SECONDS = 10.0  # a service looks every second, and opens a large index in a few


# --- arguments ---


def size(text: str) -> int:
    """Parse a size such as 400MiB, 2G or 1.5GB (GiB and G are 2^30, GB is 10^9) into bytes; raises LimbeckError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(ib|b)?\s*", text.lower())
    if match is None or float(match[1]) == 0:
        raise LimbeckError(f"{text!r} is not a size; write something like 400MiB or 2GiB")
    base = 1000 if match[3] == "b" and match[2] else 1024
    return int(float(match[1]) * base ** _UNITS[match[2]])


def settings(memory: str | None, **options: Any) -> Settings:
    """Build settings, with the memory given as a size such as 2GiB."""
    return Settings(memory_bytes=size(memory) if memory is not None else None, **options)


def spec(index: str, opening: Sequence[str]) -> IndexSpec:
    """Parse [NAME=]FOLDER[,FOLDER...] and --set; NAME defaults to the first folder's name."""
    name, separator, folders = index.partition("=")
    if not separator or "/" in name:
        folders = index
        name = Path(index.split(",")[0]).resolve().name
    if not all(folders.split(",")):
        raise LimbeckError(f"{index!r}: a folder is missing; write FOLDER or NAME=FOLDER, with commas between several folders")
    given: dict[str, Any] = {"name": name, "paths": [str(Path(folder).expanduser()) for folder in folders.split(",")]}
    for setting in opening:
        key, separator, value = setting.partition("=")
        if not separator or key not in ("dtype", "version", "eos", "tokenizer", "load"):
            raise LimbeckError(
                f"--set {setting}: expected dtype, version, eos, tokenizer or load with a value, as in --set dtype=u8"
            )
        given[key] = int(value) if key in ("version", "eos") and value.isdigit() else value
    return _checked(IndexSpec, given)


def opened(index: str, opening: Sequence[str]) -> Served:
    """Open an index for queries."""
    return open_served(spec(index, opening))


def query_of(served: Served, query: str, ids: bool, word: bool, clauses: bool) -> dict[str, Any]:
    """A query in the form of the typed routes."""

    def term(text: str) -> str | list[int]:
        if not ids:
            return served.pieces.word_start + text if word and text else text
        try:
            return [int(number) for number in re.split(r"[\s,]+", text.strip()) if number]
        except ValueError as error:
            raise LimbeckError(f"{text[:60]!r} is not a list of token ids; write them as 12 7 9, or omit --ids") from error

    if clauses:
        written = [clause.split(" OR ") for clause in query.split(" AND ")]
        if not all(text.strip() for clause in written for text in clause):
            raise LimbeckError("a phrase is missing beside AND or OR; write one on each side")
        return {"clauses": [[term(text) for text in clause] for clause in written]}
    return {"ids" if ids else "text": term(query)}


def read_text(text: str, file: Path | None) -> str:
    """The given text, or the file's; raises LimbeckError unless exactly one is given."""
    if (file is None) == (not text):
        raise LimbeckError("give a text or --file FILE, and not both")
    return text if file is None else _read(file)


def read_numbers(file: Path | None) -> list[int]:
    """The integers in a file; [] without a file."""
    if file is None:
        return []
    try:
        return [int(number) for number in _read(file).split()]
    except ValueError as error:
        raise LimbeckError(f"{file} is not a list of document numbers ({error}); write one number per line") from error


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise LimbeckError(f"cannot read {file} as UTF-8 text ({error}); check the path, or convert the file") from error


def _checked(model: type[Model], given: dict[str, Any]) -> Model:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:1])
        words = first["msg"].removeprefix("Value error, ")
        raise LimbeckError(f"{where}: {words}" if where else words) from error


# --- queries ---


def count(served: Served, query: dict[str, Any]) -> models.CountAnswer:
    """Count the occurrences of a query."""
    asked = _checked(models.ClauseQuery, query)
    if asked.clauses is not None:
        return answers.count_clauses(served, asked, LIMITS)
    return models.CountAnswer(count=served.index.count(served.ids(asked.text, asked.ids, _MOST)), approximate=False)


def next_tokens(served: Served, query: dict[str, Any], infgram: bool, limit: int) -> models.NextAnswer:
    """Count the tokens that follow a prompt."""
    asked = _checked(models.NextQuery, {**query, "limit": limit})
    ask = served.index.infgram_next_tokens if infgram else served.index.next_tokens
    return answers.next_page(served, ask(served.ids(asked.text, asked.ids, _MOST)), asked)


def prob(served: Served, query: dict[str, Any], infgram: bool) -> models.ProbAnswer:
    """Probability of a query's last token, given the tokens before it."""
    asked = _checked(models.Query, query)
    ids = served.ids(asked.text, asked.ids, _MOST)
    if not ids:
        raise LimbeckError("the query is empty; give at least one token")
    ask = served.index.infgram_prob if infgram else served.index.prob
    return answers.prob(ask(ids[:-1], ids[-1]))


def search(served: Served, query: dict[str, Any], options: dict[str, Any]) -> models.SearchAnswer:
    """Find documents that contain a query."""
    return answers.search(served, _checked(models.SearchQuery, {**query, **options}), LIMITS)


def score(served: Served, query: dict[str, Any]) -> models.ScoreAnswer:
    """Probability of every token of a text."""
    asked = _checked(models.Query, query)
    return answers.score(served, served.ids(asked.text, asked.ids, _MOST))


def trace(served: Served, query: dict[str, Any], options: dict[str, Any]) -> models.TraceAnswer:
    """Find the spans of a text that occur in the index."""
    return answers.trace(served, _checked(models.TraceQuery, {**query, **options}), LIMITS)


# --- text output ---


def say(value: dict[str, Any], words: str, as_json: bool) -> None:
    """Print JSON, or text."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False) if as_json else words)


def answer(value: BaseModel, words: str, as_json: bool) -> None:
    """Print an answer as JSON, or text."""
    typer.echo(value.model_dump_json(indent=2) if as_json else words)


def built(manifest: dict[str, Any], folder: Path, as_json: bool, skipped: Sequence[dict[str, Any]] = ()) -> None:
    """Print the size and format of an index, and the rows that were skipped because they hold no document."""
    shards = manifest["shards"]
    tokens, documents = (sum(shard[name] for shard in shards) for name in ("tokens", "documents"))
    size_bytes = sum(file["bytes"] for shard in shards for file in shard["files"].values())
    sizes = f"{counted(tokens, 'token')}, {counted(documents, 'document')}, {counted(len(shards), 'shard')}"
    words = f"{folder}: {sizes}, {size_bytes / 1e6:,.1f} MB"
    facts = {"folder": str(folder), "tokens": tokens, "documents": documents, "shards": len(shards), "bytes": size_bytes}
    reasons = [(reason, rows) for entry in skipped for reason, rows in entry["rows"].items()]
    for reason, rows in reasons:
        words += f"\nskipped {counted(rows['rows'], 'row')}: {reason} (first: {rows['first']})"
    facts["skipped"] = [{"reason": reason, **rows} for reason, rows in reasons]
    say(facts | {"dtype": manifest["dtype"], "version": manifest["version"]}, words, as_json)


def removed(documents: int, folder: Path, as_json: bool) -> None:
    """Print how many documents are removed, and which services still show them after the time that they need to follow."""
    until = time.monotonic() + _SERVICE_SECONDS
    while (late := behind(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    words = f"{counted(documents, 'document')} removed so far; compact the index to free the disk space"
    for holder in late:
        words += f"\nprocess {holder.pid} on {holder.host} serves this index and still shows documents removed now; restart it"
    say({"documents_down": documents, "services_behind": [asdict(holder) for holder in late]}, words, as_json)


def tokenizer_words(served: Served) -> str:
    """The tokenizer of an index, for people."""
    tokenizer = served.index.tokenizer
    return "no tokenizer: query with --ids" if tokenizer is None else f"tokenizer: {tokenizer.spec['kind']}"


def next_words(found: models.NextAnswer) -> str:
    """Next tokens, one per line, with bars."""
    prompts = f"{counted(found.prompt_count, 'occurrence')} of {counted(found.suffix_tokens, 'token')}"
    lines = [f"{counted(found.distinct, 'distinct token')} after {prompts}"]
    for token in found.tokens:
        bar = "█" * round(20 * token.probability)
        lines.append(
            f"{token.probability:8.2%} {token.count:>12,}  {token.id:>6}  {json.dumps(token.text, ensure_ascii=False):20} {bar}"
        )
    return "\n".join(lines)


def search_words(found: models.SearchAnswer) -> str:
    """Documents, with the match in brackets."""
    about = "about " if found.approximate else ""
    parts = [f"{about}{counted(found.count, 'occurrence')}"]
    for one in found.documents:
        text = "".join(piece if clause is None else f"[{piece}]" for piece, clause in one.spans) or " ".join(map(str, one.ids))
        parts.append(f"document {one.number}, tokens {one.begin:,} to {one.begin + len(one.ids):,} of {one.tokens:,}\n{text}")
    if found.next_cursor is not None:
        parts.append(f"more: --cursor {found.next_cursor}")
    return "\n\n".join(parts)


def score_words(found: models.ScoreAnswer) -> str:
    """Probabilities, one token per line."""
    lines = ["probability  continued      prompt  suffix  token"]
    counts = zip(found.continuation_counts, found.prompt_counts, found.suffix_tokens, strict=True)
    rows = zip(found.probabilities, counts, found.tokens, found.ids, strict=True)
    for probability, (continued, prompt, suffix), token, number in rows:
        share = "unknown" if probability is None else f"{probability:.6f}"
        name = json.dumps(token, ensure_ascii=False) if token else str(number)
        lines.append(f"{share:>11} {continued:>10,} {prompt:>11,} {suffix:>7}  {name}")
    return "\n".join(lines)


def trace_words(found: models.TraceAnswer, max_count: int) -> str:
    """Spans, each with its documents; `max_count`: spans that occur more often were left out."""
    lines = [
        f"{counted(len(found.spans), 'matching span')} in {counted(len(found.ids), 'token')}; spans that occur more than "
        f"{counted(max_count, 'time')} are left out (--max-count)"
    ]
    for span in found.spans:
        numbers = ", ".join(str(one.document.number) for one in span.documents)
        text = json.dumps(span.text, ensure_ascii=False) if span.text else " ".join(map(str, found.ids[span.begin : span.end]))
        lines.append(f"tokens {span.begin} to {span.end}, {counted(span.count, 'time')}, documents {numbers}: {text}")
    return "\n".join(lines)


# --- progress ---


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """Yield a callback (step, done, total, unit): progress bars on a terminal, otherwise log lines."""
    if not sys.stderr.isatty():
        yield _PlainLines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:>10}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    rate = TextColumn("{task.fields[rate]}")
    with Progress(*columns, rate, TextColumn("ETA"), TimeRemainingColumn(), console=Console(stderr=True)) as shown:
        tasks: dict[str, tuple[Any, float]] = {}

        def report(step: str, done: int, total: int, unit: str) -> None:
            if step not in tasks:
                tasks[step] = (shown.add_task(step, total=total, rate=""), time.monotonic())
            task, started = tasks[step]
            shown.update(task, completed=done, total=total, rate=rate_words(done, time.monotonic() - started, unit))

        yield report


def rate_words(done: int, seconds: float, unit: str) -> str:
    """A rate with its prefix, such as 6.5 Mtokens/s; empty at the start."""
    if done <= 0 or seconds < 0.2:
        return ""
    rate = done / seconds
    for limit, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= limit:
            return f"{rate / limit:.1f} {prefix}{unit}/s"
    return f"{rate:.1f} {unit}/s"


class _PlainLines:
    """Progress as log lines: one when a step begins, then one every ten seconds, and one when it is complete."""

    def __init__(self) -> None:
        self._steps: dict[str, float] = {}
        self._last: dict[str, tuple[int, int]] = {}
        self._said = 0.0

    def __call__(self, step: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        before, of = self._last.get(step, (-1, -1))
        begins = of != total or before >= total > done  # also the same step for another shard
        started = self._steps[step] = now if begins else self._steps[step]
        self._last[step] = (done, total)
        is_known = not begins and before >= total
        if is_known or not (begins or done >= total or now - self._said >= _PLAIN_SECONDS):
            return
        self._said = now
        rate = rate_words(done, now - started, unit)
        left = (now - started) / done * (total - done) if done > 0 and rate else 0.0
        eta = f", {rate}, {left:.0f} s left" if rate else ""
        print(f"{time.strftime('%H:%M:%S')} {step}: {done:,} of {total:,} {unit}{eta}", file=sys.stderr, flush=True)
