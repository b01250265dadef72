"""The PMI critic with the real teacher on real documents."""

from argparse import Namespace

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import pmi as benchmark
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.models import resolve
from limbeck.corpus.schemas import SCORED_INPUT
from limbeck.corpus.source_kinds import PackagesSources
from limbeck.corpus.sources import read_sources
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.filters.models.pmi import PmiFilter
from limbeck.generators.runner import Runner
from limbeck.generators.summaries import SummariesConfig

pytestmark = pytest.mark.model
MODEL = "embedded:smollm2-135m-instruct"
DOCUMENTS = 28


@pytest.mark.slow
def test_true_pairs_beat_mismatched_ones() -> None:
    """The same output beside another document loses on faithfulness and on saliency, for at least nine candidates in ten."""
    config = PackagesSources(kind="installed-packages", max_source_tokens=100, max_documents=DOCUMENTS)
    sources = read_sources(config, Tokenizer.load(resolve(MODEL)), seed=1)
    sources = sources.filter(pa.array([reason is None for reason in sources["reason"].to_pylist()]))
    rows = sources.to_pylist()
    assert len(rows) == DOCUMENTS
    engine = Engines().get(TransformersConfig(model=MODEL))
    outputs = Runner(SummariesConfig(samples=2, max_new_tokens=40).build(), 1, 0).run(sources, {"teacher": engine}).to_pylist()
    outputs = [row for row in outputs if row["output"]]
    assert len({row["source_id"] for row in outputs}) >= 24
    places = {row["source_id"]: place for place, row in enumerate(rows)}
    true, mismatched = [], []
    for row in outputs:
        place = places[row["source_id"]]
        circle = rows[place + 1 :] + rows[:place]
        other = next(theirs for theirs in circle if theirs["group"] != rows[place]["group"])
        true.append({**rows[place], **row})
        mismatched.append({**other, **row})
    table = pa.Table.from_pylist(true + mismatched, schema=SCORED_INPUT)
    scores = PmiFilter(engine).score(table)
    for column in ("faithfulness", "saliency"):
        values = scores[column].to_numpy()
        assert np.isfinite(values).all()
        wins = values[: len(true)] > values[len(true) :]
        assert wins.mean() >= 0.9, f"{column}: {wins.sum()} of {len(wins)}"


def test_scores_equal_the_naive_computation() -> None:
    config = TransformersConfig(model=MODEL, dtype="float32")
    engine = Engines().get(config)
    candidates = benchmark.sampled_candidates(Namespace(model=MODEL, documents=1, document_tokens=80, candidates=2), engine)
    assert candidates.num_rows == 2
    scores = PmiFilter(engine).score(candidates)
    found = np.stack([scores[term].to_numpy() for term in benchmark.TERMS], axis=1)
    np.testing.assert_allclose(found, benchmark.Naive(config).score(candidates), rtol=1e-4)
