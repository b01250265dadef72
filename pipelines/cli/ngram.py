"""The commands `limbeck ngram ...`: build an n-gram index, keep it, ask it, serve it; their JSON is the service's."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="ngram",
    help="Count any phrase of a corpus exactly, see what follows it, find and trace texts: an infini-gram index.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# arguments and options that several commands share
IndexArgument = Annotated[
    str, typer.Argument(metavar="INDEX", help="an index folder, or several as one: FOLDER,FOLDER", show_default=False)
]
FolderArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="an index folder", show_default=False)]
PathsArgument = Annotated[
    list[Path],
    typer.Argument(help="files or folders: text, JSON (.gz, .zst), Parquet, saved datasets, ids (.npy)", show_default=False),
]
QueryArgument = Annotated[str, typer.Argument(help="a text, or with --ids token ids", show_default=False)]
TextArgument = Annotated[str, typer.Argument(help="the text itself; see --file for longer ones", show_default=False)]
Memory = Annotated[str | None, typer.Option(help="most memory to use, such as 2GiB [default: half of what is free]")]
Threads = Annotated[int | None, typer.Option(min=1, help="[default: all cores]")]
Shards = Annotated[int, typer.Option(min=1, max=4096, help="new shards; each is one suffix array")]
Column = Annotated[str, typer.Option(help="the field of JSON, Parquet and datasets that holds the text or the ids")]
Split = Annotated[str, typer.Option(help="the split of a saved dataset")]
Opening = Annotated[
    list[str],
    typer.Option("--set", help="what an official folder leaves out: dtype=u8, version=5, eos=2, tokenizer=NAME; or load=ram"),
]
Ids = Annotated[bool, typer.Option("--ids", help="the query is token ids: 12 7 9")]
Word = Annotated[bool, typer.Option("--word/--as-is", help="the text begins a word, or is cut into tokens as it stands")]
Clauses = Annotated[bool, typer.Option("--cnf", help="the query is phrases joined by AND and OR, near one another")]
Infgram = Annotated[bool, typer.Option("--infgram", help="use the longest suffix of the prompt that occurs")]
File = Annotated[Path | None, typer.Option(help="read the text from a file, or from standard input: -")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON value instead of text")]


@app.command()
def build(
    paths: PathsArgument,
    out: Annotated[Path, typer.Option(help="the index folder", show_default=False)],
    tokenizer: Annotated[
        str | None, typer.Option(help="bytes, tiktoken:NAME, a model folder or tokenizer.json; none for documents of ids")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="u8, u16 or u32 [default: by the vocabulary]")] = None,
    version: Annotated[int, typer.Option(min=4, max=5, help="4, or 5 for reversed documents")] = 4,
    shards: Shards = 1,
    metadata: Annotated[bool, typer.Option("--metadata/--no-metadata", help="keep the documents' other fields")] = True,
    text_column: Column = "text",
    split: Split = "train",
    memory: Memory = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Build an index, or go on where a killed build stopped."""
    from limbeck.infinigram.build import build as make
    from limbeck.pipelines.cli import ngram_show

    settings = ngram_show.settings(
        memory,
        tokenizer=tokenizer,
        dtype=dtype,
        version=version,
        shards=shards,
        metadata=metadata,
        text_column=text_column,
        split=split,
        threads=threads,
    )
    with ngram_show.progress() as report:
        manifest = make(paths, out, settings, report)
    ngram_show.built(manifest, out, as_json)


@app.command()
def append(
    index: FolderArgument,
    paths: PathsArgument,
    shards: Shards = 1,
    metadata: Annotated[bool, typer.Option("--metadata/--no-metadata", help="keep the documents' other fields")] = True,
    text_column: Column = "text",
    split: Split = "train",
    memory: Memory = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Add documents to an index as new shards."""
    from limbeck.infinigram.maintain import append as add
    from limbeck.pipelines.cli import ngram_show

    settings = ngram_show.settings(
        memory, shards=shards, metadata=metadata, text_column=text_column, split=split, threads=threads
    )
    with ngram_show.progress() as report:
        manifest = add(index, paths, settings, report)
    ngram_show.built(manifest, index, as_json)


@app.command()
def remove(
    index: FolderArgument,
    documents: Annotated[list[int] | None, typer.Argument(help="their numbers, as search shows them", show_default=False)] = None,
    numbers: Annotated[Path | None, typer.Option("--from", help="a file of document numbers, or standard input: -")] = None,
    as_json: AsJson = False,
) -> None:
    """Take documents down: from then on they are never counted or shown; `compact` deletes them."""
    from limbeck.infinigram.maintain import remove as take_down
    from limbeck.pipelines.cli import ngram_show

    chosen = [*(documents or ()), *ngram_show.read_numbers(numbers)]
    with ngram_show.progress() as report:
        down = take_down(index, chosen, report)
    ngram_show.say({"documents_down": down}, f"{down:,} documents are down; compact the index to delete them", as_json)


@app.command()
def compact(index: FolderArgument, memory: Memory = None, threads: Threads = None, as_json: AsJson = False) -> None:
    """Delete what was taken down, by rebuilding the shards that held it."""
    from limbeck.infinigram.maintain import compact as rebuild
    from limbeck.pipelines.cli import ngram_show

    with ngram_show.progress() as report:
        manifest = rebuild(index, ngram_show.settings(memory, threads=threads), report)
    ngram_show.built(manifest, index, as_json)


@app.command()
def verify(
    index: FolderArgument,
    dtype: Annotated[str | None, typer.Option(help="of an official folder: u8, u16 or u32 [default: u16]")] = None,
    sample: Annotated[int, typer.Option(min=0, help="compare only so many places of each table, without checksums")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check every file of an index; exit code 1 and one sentence name the first fault."""
    from dataclasses import asdict

    from limbeck.infinigram.verify import verify as check
    from limbeck.pipelines.cli import ngram_show

    with ngram_show.progress() as report:
        found = check(index, dtype, sample, report)
    sums = "checksums match" if found.checksums else "no checksums to compare with"
    words = f"whole: {found.shards} shards, {found.documents:,} documents, {found.tokens:,} tokens; {sums}"
    ngram_show.say(asdict(found), words, as_json)


@app.command()
def info(index: IndexArgument, opening: Opening = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Say what an index holds."""
    from limbeck.infinigram.service import answers
    from limbeck.pipelines.cli import ngram_show

    served = ngram_show.opened(index, opening)
    found = answers.index(served)
    kind = f"{found.shards} shards, {found.dtype}, version {found.version}"
    words = f"{found.tokens:,} tokens in {found.documents:,} documents; {kind}; {ngram_show.tokenizer_words(served)}"
    ngram_show.answer(found, words, as_json)


@app.command()
def count(
    index: IndexArgument,
    query: QueryArgument,
    ids: Ids = False,
    word: Word = True,
    clauses: Clauses = False,
    opening: Opening = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Count how often a phrase occurs."""
    from limbeck.pipelines.cli import ngram_show

    served = ngram_show.opened(index, opening)
    found = ngram_show.count(served, ngram_show.query_of(served, query, ids, word, clauses))
    about = "about " if found.approximate else ""
    ngram_show.answer(found, f"{about}{found.count:,}", as_json)


@app.command("next")
def next_tokens(
    index: IndexArgument,
    prompt: QueryArgument,
    ids: Ids = False,
    word: Word = True,
    infgram: Infgram = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="tokens, the most frequent first")] = 20,
    opening: Opening = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Show which tokens follow a phrase, with exact counts."""
    from limbeck.pipelines.cli import ngram_show

    served = ngram_show.opened(index, opening)
    found = ngram_show.next_tokens(served, ngram_show.query_of(served, prompt, ids, word, False), infgram, limit)
    ngram_show.answer(found, ngram_show.next_words(found), as_json)


@app.command()
def prob(
    index: IndexArgument,
    query: QueryArgument,
    ids: Ids = False,
    word: Word = True,
    infgram: Infgram = False,
    opening: Opening = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Show how probable the last token of a phrase is after those before it."""
    from limbeck.pipelines.cli import ngram_show

    served = ngram_show.opened(index, opening)
    found = ngram_show.prob(served, ngram_show.query_of(served, query, ids, word, False), infgram)
    share = "unknown: the prompt never occurs" if found.probability is None else f"{found.probability:.6g}"
    words = f"{share} ({found.continuation_count:,} of {found.prompt_count:,}, after {found.suffix_tokens} tokens)"
    ngram_show.answer(found, words, as_json)


@app.command()
def search(
    index: IndexArgument,
    query: QueryArgument,
    ids: Ids = False,
    word: Word = True,
    clauses: Clauses = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="documents")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="the order in which occurrences are drawn")] = 0,
    cursor: Annotated[str | None, typer.Option(help="next_cursor of the page before")] = None,
    distinct: Annotated[bool, typer.Option("--distinct", help="each document once")] = False,
    max_tokens: Annotated[int, typer.Option(min=1, max=10_000, help="tokens shown around the match")] = 100,
    opening: Opening = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Draw documents in which a phrase occurs."""
    from limbeck.pipelines.cli import ngram_show

    served = ngram_show.opened(index, opening)
    options: dict[str, Any] = {
        "limit": limit,
        "seed": seed,
        "cursor": cursor,
        "distinct_documents": distinct,
        "max_tokens": max_tokens,
    }
    found = ngram_show.search(served, ngram_show.query_of(served, query, ids, word, clauses), options)
    ngram_show.answer(found, ngram_show.search_words(found), as_json)


@app.command()
def score(
    index: IndexArgument,
    text: TextArgument = "",
    file: File = None,
    ids: Ids = False,
    opening: Opening = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Show the ∞-gram probability of every token of a text."""
    from limbeck.pipelines.cli import ngram_show

    served = ngram_show.opened(index, opening)
    found = ngram_show.score(served, ngram_show.query_of(served, ngram_show.read_text(text, file), ids, False, False))
    ngram_show.answer(found, ngram_show.score_words(found), as_json)


@app.command()
def trace(
    index: IndexArgument,
    text: TextArgument = "",
    file: File = None,
    ids: Ids = False,
    max_count: Annotated[int, typer.Option(min=1, help="leave out spans that occur more often")] = 10,
    min_tokens: Annotated[int, typer.Option(min=1, help="shortest span")] = 3,
    all_spans: Annotated[bool, typer.Option("--all", help="all spans, not only the rarest")] = False,
    opening: Opening = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Find the spans of a text that occur word for word, and the documents that hold them."""
    from limbeck.pipelines.cli import ngram_show

    served = ngram_show.opened(index, opening)
    options: dict[str, Any] = {"max_count": max_count, "min_tokens": min_tokens}
    options |= {"spans_per_token": None} if all_spans else {}
    found = ngram_show.trace(served, ngram_show.query_of(served, ngram_show.read_text(text, file), ids, False, False), options)
    ngram_show.answer(found, ngram_show.trace_words(found), as_json)


@app.command()
def serve(
    indexes: Annotated[list[str], typer.Argument(help="index folders: FOLDER or NAME=FOLDER[,FOLDER...]", show_default=False)],
    host: Annotated[str, typer.Option(help="the address to listen on; 0.0.0.0 for all")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="processes; they share the memory of mapped files")] = 1,
    keys: Annotated[Path | None, typer.Option(help="a file of bearer keys, one a line (also: LIMBECK_NGRAM_KEYS)")] = None,
    deadline: Annotated[float, typer.Option(min=0.1, help="seconds that one query may take")] = 30.0,
    max_body: Annotated[str, typer.Option(help="largest request")] = "1MiB",
    max_requests: Annotated[int, typer.Option(min=1, help="requests in flight in one worker")] = 512,
    opening: Opening = [],  # noqa: B006
) -> None:
    """Serve indexes: the official web API at POST /, typed routes under /v1, a search page at /."""
    from limbeck.infinigram.service.app import ServiceConfig, keys_of
    from limbeck.infinigram.service.app import serve as run
    from limbeck.infinigram.service.limits import Limits, cores
    from limbeck.pipelines.cli import ngram_show

    limits = Limits(
        body_bytes=ngram_show.size(max_body), deadline_seconds=deadline, requests=max_requests, threads=max(2, cores() // workers)
    )
    config = ServiceConfig(tuple(ngram_show.spec(index, opening) for index in indexes), keys_of(keys), limits)
    run(
        config,
        host,
        port,
        workers,
        lambda url: typer.echo(f"serving {', '.join(one.name for one in config.indexes)} at {url}", err=True),
    )
