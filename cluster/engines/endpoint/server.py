"""The server: its key, the models it serves, and errors for the user if it refuses us."""

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from limbeck.cluster.engines.endpoint.answers import BUSY, NO_MODEL, error_words
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.environment import variable
from limbeck.cluster.engines.protocol import EngineDied, ServerGone
from limbeck.corpus.errors import LimbeckError

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)

CONNECT_SECONDS = 10.0
ASK_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 4.0  # less than the 5 s after which uvicorn, and so vLLM, closes the connection, to avoid a race
OF_KEYS = (401, 403)  # statuses of a key that is not accepted; some gateways send 403 for a row
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Key:
    """The API key of a server; it is only sent in a header, and its repr is masked. Thread-safe."""

    def __init__(self, secret: str = "", variable: str | None = None) -> None:
        """Wrap the API key; empty if the server needs none. `variable` is where it is read again after a refusal."""
        self._secret, self._variable = SecretStr(secret), variable
        self._earlier: list[SecretStr] = []  # rotated: a server may still echo them
        self._lock = threading.Lock()

    @classmethod
    def of(cls, config: EndpointConfig) -> "Key":
        """Read the key from the environment; raises LimbeckError if the variable is not set or not a valid key."""
        return cls(_read(config.api_key_env) if config.api_key_env else "", config.api_key_env)

    def renew(self, sent: SecretStr) -> None:
        """Read the key again after the server refused `sent`, unless it has been replaced since."""
        with self._lock:
            if self._variable is None or self._secret != sent:
                return
            with contextlib.suppress(LimbeckError):  # it was unset: the server's refusal is the better message
                found = SecretStr(_read(self._variable))
                if found != sent:
                    self._earlier.append(sent)
                    self._secret = found

    @property
    def secret(self) -> SecretStr:
        """The key to send now."""
        return self._secret

    def headers(self) -> httpx.Headers:
        """The header that carries the key, masked in its repr; none if the key is empty."""
        value = self._secret.get_secret_value()
        return httpx.Headers({"Authorization": f"Bearer {value}"} if value else {})

    def hide(self, text: str) -> str:
        """The text without the key, which some servers echo when they refuse it."""
        for secret in (self._secret, *self._earlier):
            if value := secret.get_secret_value():
                text = text.replace(value, "***")
        return text

    def open(self, kind: type[Http], config: EndpointConfig) -> Http:
        """An httpx client, whose requests need `headers`. No proxy is used for a server on this machine."""
        return kind(
            timeout=httpx.Timeout(config.timeout_seconds, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE_SECONDS),
            trust_env=urlsplit(config.base_url).hostname not in LOOPBACK,
        )


def _read(name: str) -> str:
    secret = variable(name)
    if not secret:
        raise LimbeckError(f"the environment variable {name} is not set; it must hold the endpoint's key")
    if not (secret.isascii() and secret.isprintable()):
        raise LimbeckError(f"the environment variable {name} contains characters that are invalid in a key")
    return secret


@dataclass(frozen=True)
class Served:
    """The server's name for the model, and the context it reports (vLLM does; None: not reported)."""

    name: str
    context_tokens: int | None


def ask_what_is_served(config: EndpointConfig, key: Key) -> Served:
    """Query /models once for the model to use; raises LimbeckError for errors that the user can fix, otherwise EngineDied."""
    try:
        with key.open(httpx.Client, config) as http:
            response = _get_models(http, config, key)
            if response.status_code in OF_KEYS:
                key.renew(sent := key.secret)
                response = _get_models(http, config, key) if key.secret != sent else response
    except httpx.RequestError as error:
        words = key.hide(str(error)) or type(error).__name__
        raise ServerGone(f"no response from {config.base_url}: {words}") from error
    words = f"{response.status_code}: {key.hide(error_words(response.content))}"
    if response.status_code in BUSY or response.status_code >= 500:
        raise ServerGone(f"{config.base_url}/models returned {words}")
    models = _listed(response) if response.status_code == 200 else None
    if config.served_name is not None and response.status_code not in OF_KEYS:  # not every server lists all its models
        known = next((model for model in models or [] if model["id"] == config.served_name), {})
        return Served(config.served_name, _context(known))
    if response.status_code != 200:
        raise LimbeckError(user_words(config, response.status_code, words))
    whole = [model for model in models or [] if not model.get("parent")]  # vLLM also lists adapters, with their parent
    names = ", ".join(model["id"] for model in whole[:20])
    if len(whole) != 1:
        found = f"serves {len(whole)} models ({names})" if whole else "lists no models"
        raise LimbeckError(f"{config.base_url} {found}; set served_name to the one to use")
    return Served(whole[0]["id"], _context(whole[0]))


def _get_models(http: httpx.Client, config: EndpointConfig, key: Key) -> httpx.Response:
    return http.get(f"{config.base_url}/models", timeout=ASK_SECONDS, headers=key.headers())


def wait_for_server(config: EndpointConfig, key: Key) -> Served:
    """Like `ask_what_is_served`, but waits up to `patience_seconds` for a server that is still starting."""
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
    """Problems for the preflight: the key is not set, the server does not respond, or the model to use is unclear."""
    try:
        ask_what_is_served(config, Key.of(config))
    except LimbeckError as error:
        return [str(error)]
    except EngineDied as error:
        return [f"{error}; start the server, or set base_url"]
    return []


def user_words(config: EndpointConfig, status: int, words: str) -> str:
    """One sentence about a refusal of every request, which the user can fix."""
    where = config.base_url
    if status in OF_KEYS:
        key = f"the key in {config.api_key_env} is not accepted" if config.api_key_env else "it requires a key: set api_key_env"
        return f"{where} refuses us ({words}); {key}"
    if status in (402, 429):
        return f"{where} returned a billing error ({words}); check the account's credit and rerun to resume"
    if status == 404 or NO_MODEL.search(words):
        name = f" {config.served_name!r}" if config.served_name else ""
        return f"{where} does not know the model{name} or the path ({words}); check served_name, and that base_url ends in /v1"
    if 300 <= status < 400:
        return f"{where} redirects us ({words}); set base_url to the final address of the server"
    if status == 405 or status < 300:
        return f"{where} does not answer as an OpenAI-compatible server ({words}); check base_url"
    return f"{where} refuses every request ({words}); fix the cause and rerun to resume"


def _listed(response: httpx.Response) -> list[dict[str, Any]] | None:
    """The models of a list, each with its id; None if the answer is not a list."""
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
