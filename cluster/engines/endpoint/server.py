"""The server itself: the key it wants, the models it serves, and what to tell the user where it will not have us."""

import os
import time
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from limbeck.cluster.engines.endpoint.answers import BUSY, error_words
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.protocol import EngineDied, ServerGone
from limbeck.corpus.errors import LimbeckError

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)

CONNECT_SECONDS = 10.0
ASK_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 4.0  # less than the 5 s after which uvicorn, and so vLLM, closes: a request must not meet that moment
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Key:
    """The key of a server, which leaves this object in a header only; its repr is stars."""

    def __init__(self, secret: str = "") -> None:
        """Hold a key; "" where the server wants none."""
        self._secret = SecretStr(secret)

    @classmethod
    def of(cls, config: EndpointConfig) -> "Key":
        """Read the key from the environment; raises LimbeckError where the variable is not set or cannot be sent."""
        if config.api_key_env is None:
            return cls()
        secret = os.environ.get(config.api_key_env, "").strip()
        if not secret:
            raise LimbeckError(f"the environment variable {config.api_key_env} is not set; it must hold the endpoint's key")
        if not (secret.isascii() and secret.isprintable()):
            raise LimbeckError(f"the environment variable {config.api_key_env} holds characters that no key can have")
        return cls(secret)

    def hide(self, text: str) -> str:
        """The text without the key, which some servers repeat when they refuse it."""
        secret = self._secret.get_secret_value()
        return text.replace(secret, "***") if secret else text

    def open(self, kind: type[Http], config: EndpointConfig) -> Http:
        """A client of httpx's that sends the key. A server on this machine is never asked through a proxy."""
        secret = self._secret.get_secret_value()
        limits = httpx.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE_SECONDS)
        return kind(
            headers={"Authorization": f"Bearer {secret}"} if secret else {},
            timeout=httpx.Timeout(config.timeout_seconds, connect=CONNECT_SECONDS),
            limits=limits,
            trust_env=urlsplit(config.base_url).hostname not in LOOPBACK,
        )


@dataclass(frozen=True)
class Served:
    """What a server calls the model, and the context it says it has (vLLM does; None: it does not say)."""

    name: str
    context_tokens: int | None


def ask_what_is_served(config: EndpointConfig, key: Key) -> Served:
    """Ask /models which model to use, once; raises LimbeckError where that is for the user to mend, else EngineDied."""
    try:
        with key.open(httpx.Client, config) as http:
            response = http.get(f"{config.base_url}/models", timeout=ASK_SECONDS)
    except httpx.RequestError as error:
        words = key.hide(str(error)) or type(error).__name__
        raise ServerGone(f"nothing answers at {config.base_url}: {words}") from error
    words = f"{response.status_code}: {key.hide(error_words(response.content))}"
    if response.status_code in BUSY or response.status_code >= 500:
        raise ServerGone(f"{config.base_url}/models answers {words}")
    models = _listed(response) if response.status_code == 200 else None
    if config.served_name is not None and response.status_code not in (401, 403):  # not every server lists its models, nor all
        known = next((model for model in models or [] if model["id"] == config.served_name), {})
        return Served(config.served_name, _context(known))
    if response.status_code != 200:
        raise LimbeckError(user_words(config, response.status_code, words))
    whole = [model for model in models or [] if not model.get("parent")]  # vLLM lists adapters too, with their parent
    names = ", ".join(model["id"] for model in whole[:20])
    if len(whole) != 1:
        found = f"serves {len(whole)} models ({names})" if whole else "lists no models"
        raise LimbeckError(f"{config.base_url} {found}; set served_name to the one to use")
    return Served(whole[0]["id"], _context(whole[0]))


def wait_for_server(config: EndpointConfig, key: Key) -> Served:
    """As `ask_what_is_served`, but a server that is still coming up is waited for, up to `patience_seconds`."""
    started, pause = time.monotonic(), min(1.0, config.backoff_seconds)
    while True:
        try:
            return ask_what_is_served(config, key)
        except EngineDied as died:
            waited = time.monotonic() - started
            if waited + pause > config.patience_seconds:
                raise ServerGone(f"{died} (waited {waited:.0f} s)") from died
        time.sleep(pause)


def problems(config: EndpointConfig) -> list[str]:
    """What the preflight reports: the key is not set, the server does not answer, or does not know what to serve."""
    try:
        ask_what_is_served(config, Key.of(config))
    except LimbeckError as error:
        return [str(error)]
    except EngineDied as error:
        return [f"{error}; start the server, or set base_url"]
    return []


def user_words(config: EndpointConfig, status: int, words: str) -> str:
    """One sentence on a refusal that the user can mend."""
    where = config.base_url
    if status in (401, 403):
        key = f"the key in {config.api_key_env} is not accepted" if config.api_key_env else "it wants a key: set api_key_env"
        return f"{where} refuses us ({words}); {key}"
    if status in (402, 429):
        return f"{where} wants to be paid first ({words}); mend the account and run again to go on"
    if status in (400, 404):
        name = f" {config.served_name!r}" if config.served_name else ""
        return (
            f"{where} does not know the model{name} or the path ({words}); check served_name, and that base_url ends as in .../v1"
        )
    if 300 <= status < 400:
        return f"{where} sends us elsewhere ({words}); set base_url to where the server really is"
    return f"{where} does not answer as an OpenAI-compatible server ({words}); check base_url"


def _listed(response: httpx.Response) -> list[dict[str, Any]] | None:
    """The models of a list, each with its id; None where the answer is no list."""
    try:
        said = response.json()
    except (ValueError, RecursionError):
        return None
    models = said.get("data") if isinstance(said, dict) else None
    if not isinstance(models, list):
        return None
    return [model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]


def _context(model: dict[str, Any]) -> int | None:
    length = model.get("max_model_len")
    return length if type(length) is int and length > 0 else None
