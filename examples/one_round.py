"""One round by hand, without Ray: documents → candidates → scores → decisions → training rows.

    python examples/one_round.py [MODEL]

MODEL is a Hugging Face id or folder; without it, the embedded teacher.
"""

import sys

import pyarrow as pa

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.models import resolve
from limbeck.corpus.source_kinds import PackagesSources
from limbeck.corpus.sources import read_sources
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.filters.models.pmi import PmiConfig
from limbeck.filters.text.heuristics import HeuristicsConfig
from limbeck.generators.contract import Question
from limbeck.generators.runner import Runner
from limbeck.generators.summaries import SummariesConfig
from limbeck.pipelines.driver.jobs import with_sources
from limbeck.pipelines.runs.rows import Answered, ChatRows
from limbeck.pipelines.runs.scored import connect
from limbeck.pipelines.runs.select import decide

model = sys.argv[1] if len(sys.argv) > 1 else "embedded:smollm2-135m-instruct"
engines, teacher = Engines(), TransformersConfig(model=model)

# documents: the descriptions of six installed packages
split = {"train": 6, "dev": 0, "test": 0}
settings = {"kind": "installed-packages", "max_documents": 6, "max_source_tokens": 120, "split": split}
sources = read_sources(PackagesSources.model_validate(settings), Tokenizer.load(resolve(model)), seed=0)
sources = sources.filter(pa.array([split == "train" for split in sources["split"].to_pylist()]))

# candidates: two summaries of each
candidates = Runner(SummariesConfig(samples=2).build(), run_seed=0, round=0).run(sources, {"teacher": engines.get(teacher)})

# scores, and one decision per candidate with its reason
filters = [HeuristicsConfig(), PmiConfig(engine=teacher, min_faithfulness=0.3, min_saliency=0.05)]
seen = with_sources(candidates, sources)
scores = {filter_.name: filter_.build(engines).score(seen) for filter_ in filters}
decisions = decide(connect(candidates, scores, sources), [(filter_.name, filter_.bounds) for filter_ in filters])

# training rows
by_id = {row["candidate_id"]: row for row in candidates.to_pylist()}
for decision in decisions.to_pylist():
    candidate = by_id[decision["candidate_id"]]
    if not decision["kept"]:
        print(f"rejected by {decision['rejected_by']}: {candidate['output'][:60]!r} ({decision['reason']})")
        continue
    row = ChatRows().row(Answered(Question(candidate["source_id"], candidate["prompt"]), candidate["output"]))
    print(f"kept: {row.completion[0].content!r}")
