"""Your own documents: a JSONL file and the recipe keys to change.

    python examples/own_data.py RECIPE DOCUMENTS.jsonl RUN

Each line of DOCUMENTS.jsonl is an object with "text" and, optionally, a human-written "summary".
"""

import sys

from limbeck.pipelines.recipe import load
from limbeck.pipelines.run import run

if __name__ == "__main__":
    recipe, documents, out = sys.argv[1:]
    sources = f"{{kind: jsonl, path: {documents!r}, reference_column: summary, split: {{train: 0.6, dev: 0.2, test: 0.2}}}}"
    run(load(recipe, [f"sources={sources}", "rounds=1"]), out)
