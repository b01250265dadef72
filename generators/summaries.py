"""Summaries: several samples of one summary for each document."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jinja2
import pyarrow as pa
from pydantic import Field

from limbeck.cluster.engines.protocol import Completion, Engine, Message, Request, Sampling
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.prompts import load_template
from limbeck.corpus.schemas import CANDIDATES
from limbeck.corpus.seeds import derive_id, derive_seed

PROMPTS = Path(__file__).parent / "prompts"


class SummariesConfig(Config):
    """How to ask for summaries, and how to sample them.

    `prompt` names a Jinja template among the generator's own, or the path of one; it sees `document`. With `style` chat it is
    the user's turn, with plain it is the text that the model goes on writing.
    """

    kind: Literal["summaries"] = "summaries"
    samples: int = Field(default=4, ge=1)
    prompt: str = "summary"
    style: Literal["chat", "plain"] = "chat"
    max_new_tokens: int = Field(default=56, ge=1)
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    top_k: int = Field(default=50, ge=0)
    stop: tuple[str, ...] = Field(default=("\n",), strict=False)  # not strict: YAML has lists, not tuples

    def build(self, run_seed: int, round: int) -> "Summaries":
        """Return the generator of one round; raises LimbeckError where the template is missing or does not render."""
        return Summaries(self, run_seed, round)


class Summaries:
    """Asks for summaries, one request a source and sample, each with a seed of its own."""

    def __init__(self, config: SummariesConfig, run_seed: int, round: int) -> None:
        """Read the template, and render it once to see that it can be."""
        self._config = config
        self._run_seed = run_seed
        self._round = round
        self._template = load_template(config.prompt, PROMPTS)
        self.render("a document")

    def render(self, document: str) -> str:
        """Return the prompt for a document, without white space at either end; raises LimbeckError where the template fails."""
        try:
            return self._template.render(document=document).strip()
        except jinja2.TemplateError as error:
            raise LimbeckError(f"the prompt {self._config.prompt} does not render: {error}; it may use `document`") from error

    def generate(self, sources: pa.Table, engine: Engine) -> pa.Table:
        """Return one row of `limbeck.corpus.schemas.CANDIDATES` for each source and sample, in that order.

        A request that the engine could not answer becomes a row with an `error` and an empty output. `sources` needs `source_id`
        and `document`. Token counts are those of the stripped output.
        """
        rows = self._drafts(sources)
        answers = {answer.request_id: answer for answer in engine.complete([self._request(row) for row in rows])}
        for row in rows:
            row |= _outcome(answers.get(row["candidate_id"]))
        counts = engine.count_tokens([row["output"] for row in rows]) if rows else []
        for row, count in zip(rows, counts, strict=True):
            row["output_tokens"] = count
        return pa.Table.from_pylist(rows, schema=CANDIDATES)

    def _drafts(self, sources: pa.Table) -> list[dict[str, Any]]:
        """What is known of each candidate before the engine is asked."""
        rows = []
        for source in sources.select(["source_id", "document"]).to_pylist():
            prompt = self.render(source["document"])
            for sample in range(self._config.samples):
                rows.append(
                    {
                        "candidate_id": derive_id(self._round, source["source_id"], sample),
                        "source_id": source["source_id"],
                        "sample": sample,
                        "seed": derive_seed(self._run_seed, self._round, source["source_id"], sample),
                        "prompt": prompt,
                    }
                )
        assert len({row["candidate_id"] for row in rows}) == len(rows), "a source stands twice in this part"
        return rows

    def _request(self, row: Mapping[str, Any]) -> Request:
        config = self._config
        prompt = (Message("user", row["prompt"]),) if config.style == "chat" else row["prompt"]
        sampling = Sampling(config.max_new_tokens, config.temperature, config.top_p, config.top_k, config.stop)
        return Request(row["candidate_id"], prompt, sampling, row["seed"])


def _outcome(answer: Completion | None) -> dict[str, Any]:
    """The columns that the engine's answer decides; no answer is an error like any other."""
    if answer is None:
        return {"output": "", "prompt_tokens": 0, "finish_reason": "error", "error": "the engine gave no answer"}
    failed = answer.finish_reason == "error"
    return {
        "output": "" if failed else answer.text.strip(),
        "prompt_tokens": answer.prompt_tokens,
        "finish_reason": answer.finish_reason,
        "error": (answer.error or "the engine gave no reason") if failed else None,
    }
