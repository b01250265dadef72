"""Arguments and options that several `limbeck ngram` commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
