"""The section of a generator that requires words, and what a script receives for them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from helpers.scripted_engine import ScriptedEngine, completion
from helpers.tiny_engines import save
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.constraint import Constraint
from limbeck.cluster.engines.journal import JournaledEngine, request_key
from limbeck.cluster.engines.protocol import Request, Sampling
from limbeck.corpus import extras
from limbeck.corpus.seeds import derive_id
from limbeck.generators.constrained import ConstraintSection
from limbeck.generators.contract import Draft, Draw, Script, Source, Task
from limbeck.generators.own import own_generator
from limbeck.generators.runner import Runner


def test_a_section_requires_words_in_any_inflection() -> None:
    section = ConstraintSection(beams=4, prune=None, banned=("very",))
    constraint = section.constraint(["dog", ["sofa", "couch"]])
    expected = [["dog", "dogged", "dogging", "dogs"], ["sofa", "sofas", "couch", "couched", "couches", "couching"]]
    assert constraint == Constraint.of(expected, ["very"], beams=4, prune=None)
    plain = ConstraintSection(inflections=False).constraint(["dog", ["sofa", "couch"]])
    assert plain == Constraint.of([["dog"], ["sofa", "couch"]])
    assert section.problems() == []


def test_a_section_is_checked() -> None:
    (problem,) = ConstraintSection(banned=("",)).problems()
    assert problem.startswith("clause 0 of the constraint has no phrase")
    for wrong in ({"beams": 0}, {"prune": 0}, {"progress": -1.0}, {"place": 1}):
        with pytest.raises(ValidationError):
            ConstraintSection.model_validate(wrong)


def test_a_section_without_its_package_has_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: module != "lemminflect")
    (problem,) = ConstraintSection().problems()
    assert problem == (
        "a constraint with inflections needs lemminflect, which is not installed: pip install 'limbeck[inflections]'"
    )
    assert ConstraintSection(inflections=False).problems() == []


def test_a_script_gets_the_n_best_texts_and_what_they_lack(tmp_path: Path) -> None:
    section = ConstraintSection(beams=3, prune=None, tolerance=0, inflections=False, whole_words=False)

    def script(source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        sampling = Sampling(6, temperature=0.0, constraint=section.constraint(["k", source.document]))
        answers = yield draw("sentence", "A dog", sampling, n=3)
        return [Draft.of(answer, "A dog", facts={"unmet": list(answer.completion.unmet)}) for answer in answers]

    engine = TransformersConfig(model=str(save(tmp_path, "llama")), dtype="float32", device="cpu").build()
    sources = pa.table({"source_id": ["short", "long"], "document": ["w", "far too long"]})
    rows = Runner(own_generator("own", script).build(), 3, 1).run(sources, {"teacher": engine}).to_pylist()
    assert len(rows) == 6 and len({(row["source_id"], row["output"]) for row in rows}) == 6
    for row in rows:
        assert json.loads(row["facts"])["unmet"] == ([] if row["source_id"] == "short" else [1]), row
        assert "k" in row["output"].lower()


def test_journals_of_versions_without_constraints_stay_valid(tmp_path: Path) -> None:
    request = Request("a", "x", Sampling(4), 0)
    plain = asdict(request)
    del plain["sampling"]["constraint"], plain["sampling"]["contrast"]
    assert request_key(request) == derive_id(json.dumps(plain, sort_keys=True, ensure_ascii=True))
    done = completion(request, "text")
    (tmp_path / "old").write_text(
        json.dumps({"key": request_key(request), **{key: value for key, value in asdict(done).items() if key != "unmet"}}) + "\n"
    )
    for path in (tmp_path / "old", tmp_path / "new"):
        assert list(JournaledEngine(ScriptedEngine(lambda _: done), path).complete([request])) == [done]
    assert list(JournaledEngine(ScriptedEngine(lambda _: None), tmp_path / "new").complete([request])) == [done]
