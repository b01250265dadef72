"""Config of an OpenAI-compatible server, its pacing and budget; read on the driver, so it imports nothing heavy."""

from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.engines.protocol import Engine, UserTurn
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError


class EndpointBudget(Config):
    """Spending limit of a server: a request that could exceed it is not sent. `money` is in the currency of the prices.

    `ledger` names a file shared by all engines that name it: the workers of a run, over all resumes. Without one, each engine
    process counts separately.
    """

    tokens: int | None = Field(default=None, ge=1)
    money: float | None = Field(default=None, gt=0)
    price_per_million_input: float = Field(default=0.0, ge=0)
    price_per_million_output: float = Field(default=0.0, ge=0)
    ledger: str | None = None

    @model_validator(mode="after")
    def _money_needs_a_price(self) -> Self:
        if self.money is not None and not (self.price_per_million_input or self.price_per_million_output):
            raise ValueError("budget.money needs price_per_million_input or price_per_million_output")
        return self


class EndpointConfig(EngineConfig):
    """An engine behind HTTP: any server with OpenAI's /v1/chat/completions, /v1/completions and /v1/models.

    `model` names the weights whose tokenizer counts tokens here (a folder, an `embedded:` name or a Hugging Face id, of which
    only the tokenizer is fetched); `served_name` is the server's name for them, null its only model. `api_key_env` names the
    environment variable that holds the key. `attempts` bounds the failures of a row while other rows are answered;
    `patience_seconds` is how long a server may answer nothing before it counts as gone. `latency_factor` is how far seconds per
    token may grow beyond their minimum before the number of concurrent requests is reduced.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # the URL may hold a key

    batches_across_callers: ClassVar[bool] = True
    holds_json_schemas: ClassVar[bool] = True
    paid: ClassVar[bool] = True
    remote: ClassVar[bool] = True
    operational: ClassVar[frozenset[str]] = frozenset(
        {
            "base_url",
            "api_key_env",
            "max_concurrency",
            "latency_factor",
            "timeout_seconds",
            "patience_seconds",
            "backoff_seconds",
            "attempts",
            "budget",
        }
    )

    kind: Literal["endpoint"] = "endpoint"
    model: str
    base_url: str = "http://127.0.0.1:8000/v1"
    served_name: str | None = None
    api_key_env: str | None = None
    max_concurrency: int = Field(default=64, ge=1)
    latency_factor: float = Field(default=8.0, gt=1)
    timeout_seconds: float = Field(default=300.0, gt=0)
    patience_seconds: float = Field(default=120.0, gt=0)
    backoff_seconds: float = Field(default=0.5, gt=0)
    attempts: int = Field(default=5, ge=1)
    context_tokens: int | None = Field(default=None, ge=2)
    budget: EndpointBudget = EndpointBudget()

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @model_validator(mode="after")  # mode "after": an error on a single field would show the field, and so a key in it
    def _bare_url(self) -> Self:
        try:
            parts = urlsplit(self.base_url)
            secret, known = bool(parts.username or parts.password or parts.query or parts.fragment), parts.hostname
            _ = parts.port
        except ValueError as error:
            raise ValueError("base_url is not a URL; write for example http://127.0.0.1:8000/v1") from error
        if secret:
            raise ValueError("base_url must hold no user, key or query; put the key into an environment variable: api_key_env")
        if parts.scheme not in ("http", "https") or not known:
            raise ValueError(f"base_url {self.base_url!r} must be like http://127.0.0.1:8000/v1")
        return self

    def folder(self) -> Path:
        """The folder with the tokenizer; no weights are needed."""
        from limbeck.cluster.engines.endpoint.prompts import locate

        return locate(self.model)

    def problems(self, key: str) -> list[str]:
        """Reports a missing key, or a server that does not respond, refuses the key, or does not serve the model."""
        from limbeck.cluster.engines.endpoint import server

        return [f"{key}: {problem}" for problem in server.problems(self)]

    def user_turn_problem(self, turn: UserTurn) -> str | None:
        """Why the chat template of `model` cannot be cut before this turn, or None; the server gets tokens at /completions."""
        from limbeck.cluster.engines.endpoint.prompts import Prompts

        try:
            Prompts.load(self.model).cut(turn)
        except LimbeckError as error:
            return str(error)
        return None

    @property
    def variables(self) -> tuple[str, ...]:
        """The one that holds the key."""
        return (self.api_key_env,) if self.api_key_env else ()

    def for_student(self, folder: str) -> EngineConfig:
        """An engine in the worker's process: the server does not serve our students."""
        from limbeck.cluster.engines.local.config import TransformersConfig

        return TransformersConfig(model=folder)

    def counted(self, folder: Path) -> "EndpointConfig":
        """The engine with its budget counted in the run folder, over all workers and resumes."""
        if self.budget.ledger or not (self.budget.tokens or self.budget.money):
            return self
        ledger = str(folder / "endpoint-budget.json")
        return self.model_copy(update={"budget": self.budget.model_copy(update={"ledger": ledger})})

    def build(self) -> Engine:
        """Return the engine once the server responds; raises LimbeckError if it refuses us, EngineDied if it does not respond."""
        from limbeck.cluster.engines.endpoint.engine import build

        return build(self)
