"""PMI decoding, measured: do summaries become more faithful to their document, by the pmi filter, than those of plain sampling?

    python -m benchmarks.pmi_decoding [--documents 40] [--samples 4] [--min-entropy 3.5987] [--style plain] [--model M] [--json]

draws the same documents and seeds with each weight of the source-free log-probability, and scores all of them with the filter
`pmi` of the same model. Figures are means over documents; differences to weight 0 are paired by document; intervals are bootstrap
95 % intervals over documents. The documents are the dev split of installed packages, so that a chosen weight is not
tested on what it was chosen on.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.models import resolve
from limbeck.corpus.schemas import CANDIDATES
from limbeck.corpus.sources import read_sources
from limbeck.corpus.text.words import plain_words
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.filters.models.pmi import PmiConfig
from limbeck.filters.text.attributes import extractiveness
from limbeck.generators.contract import TEACHER
from limbeck.generators.infosumm import InfosummConfig
from limbeck.generators.runner import Runner
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.jobs import with_sources
from limbeck.students.evaluation.measures import Measure
from limbeck.students.evaluation.statistics import interval

Floats = npt.NDArray[np.float64]
WEIGHTS = (0.0, 2**-4, 2**-3, 2**-2)
MEASURES = ("faithfulness", "saliency", "empty", "faithfulness_if_any", "saliency_if_any", "words_if_any", "copied_if_any")
"""An empty summary scores 0, so each measure is also that of the summaries that are not empty (`_if_any`)."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--min-entropy", type=float, default=3.5987)
    parser.add_argument("--style", choices=["plain", "chat"], default="plain")
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    split = f"sources.split={{train: 40, dev: {arguments.documents}, test: 24}}"
    recipe = recipes.load("quickstart", [split])
    sources = read_sources(recipe.sources, Tokenizer.load(resolve(arguments.model)), recipe.seed)
    sources = sources.filter(pc.equal(sources["split"], "dev"))
    engines, engine = Engines(), TransformersConfig(model=arguments.model)
    found: dict[float, dict[str, Any]] = {}
    for weight in WEIGHTS:
        settings = {
            "samples": arguments.samples,
            "style": arguments.style,
            "contrast": {"weight": weight, "min_entropy": arguments.min_entropy},
        }
        found[weight] = measure(InfosummConfig.model_validate(settings), sources, engines, engine)
        if not arguments.json:
            print(_line(weight, found[weight], found[WEIGHTS[0]]), flush=True)
    if arguments.json:
        print(json.dumps(_plain(found, vars(arguments), sources.num_rows), indent=1))


def measure(generator: InfosummConfig, sources: pa.Table, engines: Engines, engine: TransformersConfig) -> dict[str, Any]:
    """The means of each document of one weight: measure → [documents], the seconds of CPU, and some examples."""
    cpu = time.process_time()
    drawn = Runner(generator.build(), 0, 0).run(sources, {TEACHER: engines.get(engine)}).select(CANDIDATES.names)
    seconds = time.process_time() - cpu
    table = with_sources(drawn, sources)
    scores = PmiConfig(engine=engine).build(engines).score(table)
    outputs, documents = table["output"].to_pylist(), table["document"].to_pylist()
    rows: dict[str, Floats] = {name: scores[name].to_numpy() for name in ("faithfulness", "saliency")}
    rows["empty"] = np.array([not output for output in outputs], np.float64)
    copied = [extractiveness(output, document)["copied_3_grams"] for output, document in zip(outputs, documents, strict=True)]
    more = {"words": np.array([len(plain_words(output)) for output in outputs], np.float64), "copied": np.array(copied)}
    any_ = {name: np.where(rows["empty"] == 1, np.nan, values) for name, values in {**rows, **more}.items() if name != "empty"}
    rows |= {f"{name}_if_any": values for name, values in any_.items()}
    owners = np.array(table["source_id"].to_pylist())
    means = {name: np.array([_mean(values[owners == owner]) for owner in np.unique(owners)]) for name, values in rows.items()}
    return {"means": means, "seconds": seconds, "rows": len(outputs), "examples": [text for text in outputs if text][:3]}


def _mean(values: Floats) -> float:
    """The mean of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _line(weight: float, found: dict[str, Any], plain: dict[str, Any]) -> str:
    """One weight as text."""
    parts = [f"weight {weight}: {found['rows']} summaries, {found['seconds']:.0f} s of CPU"]
    for name in MEASURES:
        difference = interval(found["means"][name] - plain["means"][name])
        parts.append(f"{name} {_shown(interval(found['means'][name]))}, difference {_shown(difference)}")
    return "\n  ".join([*parts, *(f"| {example}" for example in found["examples"])])


def _plain(found: dict[float, dict[str, Any]], settings: dict[str, Any], documents: int) -> dict[str, Any]:
    """All weights as JSON."""
    first = found[WEIGHTS[0]]["means"]
    weights = [
        {
            "weight": weight,
            "seconds": round(one["seconds"], 1),
            **{name: one[name] for name in ("rows", "examples")},
            **{name: _dumped(interval(values)) for name, values in one["means"].items()},
            "difference": {name: _dumped(interval(values - first[name])) for name, values in one["means"].items()},
        }
        for weight, one in found.items()
    ]
    return {"settings": settings, "documents": documents, "weights": weights}


def _dumped(found: Measure | None) -> dict[str, float] | None:
    return None if found is None else found.model_dump()


def _shown(found: Measure | None) -> str:
    return "none" if found is None else f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()
