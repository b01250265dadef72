"""The commands `limbeck ngram ...`: build, maintain, query and serve an n-gram index. Their JSON equals the service's."""

from pathlib import Path
from typing import Annotated, Any

import typer

from limbeck.corpus.amounts import counted

app = typer.Typer(
    name="ngram",
    help="Build and query infini-gram indexes: exact counts of any phrase.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# arguments and options of several commands
IndexArgument = Annotated[
    str, typer.Argument(metavar="INDEX", help="an index folder, or several opened as one: FOLDER,FOLDER", show_default=False)
]
FolderArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="an index folder", show_default=False)]
PathsArgument = Annotated[
    list[Path],
    typer.Argument(
        help="files or folders: text, JSON, CSV, Parquet (also compressed), saved datasets, ids (.npy)", show_default=False
    ),
]
QueryArgument = Annotated[str, typer.Argument(help="a text, or with --ids token ids", show_default=False)]
TextArgument = Annotated[str, typer.Argument(help="the text itself; use --file for longer texts", show_default=False)]
Memory = Annotated[str | None, typer.Option(help="maximum memory, such as 2GiB [default: half of the free memory]")]
Threads = Annotated[int | None, typer.Option(min=1, help="[default: all cores]")]
Shards = Annotated[int, typer.Option(min=1, max=4096, help="new shards; each is one suffix array")]
Column = Annotated[str, typer.Option(help="the field of JSON, CSV, Parquet and datasets with the text or the token ids")]
Split = Annotated[str, typer.Option(help="the split of a saved dataset")]
Opening = Annotated[
    list[str],
    typer.Option(
        "--set", help="what an official folder does not record: dtype=u8, version=5, eos=2, tokenizer=NAME; or load=ram"
    ),
]
Ids = Annotated[bool, typer.Option("--ids", help="the query is token ids: 12 7 9")]
Word = Annotated[bool, typer.Option("--word/--as-is", help="the text begins at a word boundary, or is tokenised as is")]
Clauses = Annotated[bool, typer.Option("--cnf", help="the query is phrases joined by AND and OR, which occur close together")]
Infgram = Annotated[bool, typer.Option("--infgram", help="use the longest suffix of the prompt that occurs")]
File = Annotated[Path | None, typer.Option(help="read the text from a file; - is standard input")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON value instead of text")]


@app.command()
def build(
    paths: PathsArgument,
    out: Annotated[Path, typer.Option(help="the index folder", show_default=False)],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="bytes, tiktoken:NAME, a model folder or tokenizer.json, or a hub id; leave out for documents of token ids"
        ),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="u8, u16 or u32 [default: from the vocabulary size]")] = None,
    version: Annotated[int, typer.Option(min=4, max=5, help="4, or 5 for reversed documents")] = 4,
    shards: Shards = 1,
    metadata: Annotated[bool, typer.Option("--metadata/--no-metadata", help="keep the documents' other fields")] = True,
    text_column: Column = "text",
    split: Split = "train",
    memory: Memory = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Build an index, or resume an interrupted build."""
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
    ngram_show.built(manifest, out, as_json, manifest.get("skipped", []))


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
    newest = manifest["shards"][-1]["number"]
    skipped = [entry for entry in manifest.get("skipped", []) if newest in entry["shards"]]
    ngram_show.built(manifest, index, as_json, skipped)


@app.command()
def remove(
    index: FolderArgument,
    documents: Annotated[
        list[int] | None, typer.Argument(help="document numbers, as printed by search", show_default=False)
    ] = None,
    numbers: Annotated[Path | None, typer.Option("--from", help="a file of document numbers; - is standard input")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove documents from counts and results. `compact` deletes them from disk.

    A running service of the index follows within seconds; those that do not are listed.
    """
    from limbeck.infinigram.maintain import remove as take_down
    from limbeck.pipelines.cli import ngram_show

    chosen = [*(documents or ()), *ngram_show.read_numbers(numbers)]
    with ngram_show.progress() as report:
        down = take_down(index, chosen, report)
    ngram_show.removed(down, index, as_json)


@app.command()
def compact(index: FolderArgument, memory: Memory = None, threads: Threads = None, as_json: AsJson = False) -> None:
    """Delete removed documents from disk, by rebuilding their shards."""
    from limbeck.infinigram.maintain import compact as rebuild
    from limbeck.pipelines.cli import ngram_show

    with ngram_show.progress() as report:
        manifest = rebuild(index, ngram_show.settings(memory, threads=threads), report)
    ngram_show.built(manifest, index, as_json)


@app.command()
def verify(
    index: FolderArgument,
    dtype: Annotated[str | None, typer.Option(help="for an official folder: u8, u16 or u32 [default: u16]")] = None,
    sample: Annotated[
        int, typer.Option(min=0, help="compare only this many positions of each table, without checksums; 0: everything")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Check every file of an index. The first error is reported in one sentence, with exit code 1."""
    from dataclasses import asdict

    from limbeck.infinigram.verify import verify as check
    from limbeck.pipelines.cli import ngram_show

    with ngram_show.progress() as report:
        found = check(index, dtype, sample, report)
    sums = "checksums match" if found.checksums else "no checksums to compare with"
    sizes = [(found.shards, "shard"), (found.documents, "document"), (found.tokens, "token")]
    words = f"intact: {', '.join(counted(*size) for size in sizes)}; {sums}"
    ngram_show.say(asdict(found), words, as_json)


@app.command()
def info(index: IndexArgument, opening: Opening = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Show the size and format of an index."""
    from limbeck.infinigram.service import answers
    from limbeck.pipelines.cli import ngram_show

    served = ngram_show.opened(index, opening)
    found = answers.index(served)
    kind = f"{counted(found.shards, 'shard')}, {found.dtype}, version {found.version}"
    sizes = f"{counted(found.tokens, 'token')} in {counted(found.documents, 'document')}"
    words = f"{sizes}; {kind}; {ngram_show.tokenizer_words(served)}"
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
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10_000, help="maximum number of tokens, most frequent first")
    ] = 20,
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
    """Show the probability of a phrase's last token."""
    from limbeck.pipelines.cli import ngram_show

    served = ngram_show.opened(index, opening)
    found = ngram_show.prob(served, ngram_show.query_of(served, query, ids, word, False), infgram)
    share = "unknown: the prompt never occurs" if found.probability is None else f"{found.probability:.6g}"
    after = counted(found.suffix_tokens, "token")
    words = f"{share} ({found.continuation_count:,} of {found.prompt_count:,}, after {after})"
    ngram_show.answer(found, words, as_json)


@app.command()
def search(
    index: IndexArgument,
    query: QueryArgument,
    ids: Ids = False,
    word: Word = True,
    clauses: Clauses = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="maximum number of documents")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="seed of the order in which occurrences are drawn")] = 0,
    cursor: Annotated[str | None, typer.Option(help="next_cursor of the previous page")] = None,
    distinct: Annotated[bool, typer.Option("--distinct", help="return each document once")] = False,
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
    max_count: Annotated[int, typer.Option(min=1, help="omit spans that occur more often")] = 10,
    min_tokens: Annotated[int, typer.Option(min=1, help="minimum length of a span")] = 3,
    all_spans: Annotated[bool, typer.Option("--all", help="return all spans, not only the rarest")] = False,
    opening: Opening = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Find the spans of a text that occur verbatim, with documents."""
    from limbeck.pipelines.cli import ngram_show

    served = ngram_show.opened(index, opening)
    options: dict[str, Any] = {"max_count": max_count, "min_tokens": min_tokens}
    options |= {"spans_per_token": None} if all_spans else {}
    found = ngram_show.trace(served, ngram_show.query_of(served, ngram_show.read_text(text, file), ids, False, False), options)
    ngram_show.answer(found, ngram_show.trace_words(found, max_count), as_json)


@app.command()
def serve(
    indexes: Annotated[list[str], typer.Argument(help="index folders: FOLDER or NAME=FOLDER[,FOLDER...]", show_default=False)],
    host: Annotated[str, typer.Option(help="the address to listen on; 0.0.0.0 for all")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="worker processes; they share the memory of mapped files")] = 1,
    keys: Annotated[Path | None, typer.Option(help="a file of bearer keys, one per line (also: LIMBECK_NGRAM_KEYS)")] = None,
    deadline: Annotated[float, typer.Option(min=0.1, help="maximum seconds per query")] = 30.0,
    max_body: Annotated[str, typer.Option(help="maximum size of a request")] = "1MiB",
    max_requests: Annotated[int, typer.Option(min=1, help="maximum requests being answered at once, per worker")] = 512,
    max_connections: Annotated[int, typer.Option(min=1, help="maximum open connections per worker")] = 1024,
    max_client_connections: Annotated[
        int, typer.Option(min=1, help="maximum open connections of one address per worker; raise it behind a proxy")
    ] = 256,
    header_timeout: Annotated[float, typer.Option(min=0.1, help="maximum seconds until a request's headers are complete")] = 10.0,
    body_timeout: Annotated[float, typer.Option(min=0.1, help="maximum seconds until a request's body is complete")] = 10.0,
    opening: Opening = [],  # noqa: B006
) -> None:
    """Serve indexes over HTTP. The official API is at POST /, typed routes are under /v1, a search page is at /."""
    from limbeck.infinigram.service.app import ServiceConfig, keys_of
    from limbeck.infinigram.service.limits import Limits, cores
    from limbeck.infinigram.service.server import serve as run
    from limbeck.pipelines.cli import ngram_show

    limits = Limits(
        body_bytes=ngram_show.size(max_body),
        header_seconds=header_timeout,
        body_seconds=body_timeout,
        deadline_seconds=deadline,
        requests=max_requests,
        connections=max_connections,
        client_connections=max_client_connections,
        threads=max(2, cores() // workers),
    )
    config = ServiceConfig(tuple(ngram_show.spec(index, opening) for index in indexes), keys_of(keys), limits)
    run(
        config,
        host,
        port,
        workers,
        lambda url: typer.echo(f"serving {', '.join(one.name for one in config.indexes)} at {url}", err=True),
    )
