"""An OpenAI-compatible HTTP server for tests, in its own thread, that fails as scripted and records the requests.

Its tokens are bytes and its "model" a function of prompt and seed, so every answer can be checked; it counts what it bills.
"""

import asyncio
import contextlib
import email.utils
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from helpers.tiny_run import recipe

SPECIALS = ["<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOO_LONG = "This model's maximum context length is 256 tokens. However, you requested more."
Plan = Callable[[str, int], str]
"""(the last words of the prompt, how often it was sent before) → the name of a fault, or "" for an answer.

A status and a message, such as "403 moderated", is sent as an error of that status.
"""


def byte_tokenizer(folder: Path, chat: bool = True, context_tokens: int = 256) -> Path:
    """Save the tokenizer of a model whose tokens are bytes; no weights."""
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIALS)
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": SPECIALS[0], "eos_token": {"content": SPECIALS[1]}} | ({"chat_template": TEMPLATE} if chat else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": context_tokens}))
    return folder


def reply_text(prompt: str, seed: int, max_tokens: int) -> str:
    """The answer of the server's model, of a length that depends on the prompt."""
    words = f"{seed % 997} {prompt[::-1]}"
    return (words * 8)[: 1 + len(words) * 7 % max_tokens]


def logprob_of(place: int, token: int) -> float:
    """The log-probability of a token at a position of an echoed prompt."""
    return -((place * 31 + token * 17) % 101) / 10.0


@dataclass
class FaultServer:
    """`refuse_beyond`: 429 for more concurrent requests; `slots`: more are queued, as in a batching server."""

    plan: Plan = lambda prompt, before: ""
    seconds: float = 0.0
    refuse_beyond: int | None = None
    slots: int | None = None
    retry_after: str | None = None
    models: tuple[Any, ...] = ({"id": "tiny", "max_model_len": 256},)
    key: str | None = None
    on_refusal: Callable[[], None] = lambda: None  # called before a request with another key is answered
    refused_parameters: tuple[str, ...] = ()
    echoes: bool = True
    reshape: Callable[[str, dict[str, Any]], Any] = lambda prompt, answer: answer  # the body to send in place of an answer
    alphabet_shift: int = 0  # another tokenizer: ids stand for other bytes
    hang_seconds: float = 60.0

    arrivals: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    sent_again: list[str] = field(default_factory=list)  # although already answered
    billed: list[int] = field(default_factory=lambda: [0, 0])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    in_flight: int = 0
    seen: list[int] = field(default_factory=list)  # requests in flight, at each arrival

    def __enter__(self) -> "FaultServer":
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._turns = asyncio.Semaphore(self.slots or 1 << 20)
        server = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", 0, limit=1 << 22, backlog=512))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path = head.split(b" ", 2)[:2]
                headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                headers = {name.lower(): value for name, value in headers.items()}
                body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
                if not await self._answer(writer, method.decode(), path.decode(), headers, body):
                    break
        writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, method: str, path: str, headers: dict[bytes, bytes], body: bytes
    ) -> bool:
        self.paths.append(path)
        if self.key is not None and headers.get(b"authorization") != f"Bearer {self.key}".encode():
            self.on_refusal()
            sent = headers.get(b"authorization", b"nothing").decode().removeprefix("Bearer ")
            return await _send(writer, 401, {"error": {"message": f"Incorrect API key provided: {sent}"}})
        if method == "GET" and path == "/v1/models":
            return await _send(writer, 200, {"object": "list", "data": list(self.models)})
        if path not in ("/v1/chat/completions", "/v1/completions"):
            return await _send(writer, 404, {"detail": "Not Found"})
        self.in_flight += 1
        self.seen.append(self.in_flight)
        try:
            return await self._completion(writer, path, json.loads(body))
        finally:
            self.in_flight -= 1

    async def _completion(self, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> bool:
        self.bodies.append(body)
        if body["model"] not in [model["id"] for model in self.models]:
            words = f"The model `{body['model']}` does not exist."
            return await _send(writer, 404, {"error": {"message": words, "code": "model_not_found"}})
        for name in self.refused_parameters:
            if name in body:
                return await _send(writer, 400, {"error": {"message": f"Unrecognized request argument supplied: {name}"}})
        if "echo" in body and not self.echoes:
            return await _send(writer, 400, {"error": {"message": "echo is not supported"}})
        prompt, tokens = _prompt(path, body)
        name = f"{prompt}|{body.get('seed')}"
        before, self.arrivals[name] = self.arrivals[name], self.arrivals[name] + 1
        if name in self.answered:
            self.sent_again.append(name)
        if self.refuse_beyond is not None and self.in_flight > self.refuse_beyond:
            return await _send(writer, 429, {"error": {"message": "Too many requests"}}, self.retry_after)
        fault = self.plan(prompt, before)
        if fault[:3].isdecimal() and fault[3:4] == " ":
            return await _send(writer, int(fault[:3]), {"error": {"message": fault[4:]}})
        if fault in _STATUSES:
            status, said, retry_after = _STATUSES[fault]
            return await _send(writer, status, said, _date() if retry_after == "date" else retry_after)
        async with self._turns:
            await asyncio.sleep(self.hang_seconds if fault == "hang" else self.seconds + 0.2 * (fault == "slow"))
        text, answer = self._reply(path, body, prompt, tokens)
        self.billed[0] += tokens
        self.billed[1] += max(1, len(text.encode())) if not body.get("echo") else 1
        return await self._deliver(writer, name, fault, answer if fault else self.reshape(prompt, answer))

    def _reply(self, path: str, body: dict[str, Any], prompt: str, tokens: int) -> tuple[str, dict[str, Any]]:
        text = reply_text(prompt, body.get("seed", 0), body.get("max_tokens", body.get("max_completion_tokens", 1)) or 1)
        for stop in body.get("stop", []):
            text = text.split(stop, 1)[0]
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if body.get("echo"):
            ids = body["prompt"]
            text = "".join(chr(33 + (token + self.alphabet_shift) % 90) for token in ids) if self.alphabet_shift else _echoed(ids)
            values = [None, *(logprob_of(place, token) for place, token in enumerate(ids) if place)]
            choice |= {"text": text, "logprobs": {"token_logprobs": values + [-1.0] * (body["max_tokens"] > 0)}}
        elif path == "/v1/completions":
            choice["text"] = text
        else:
            choice["message"] = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": tokens, "completion_tokens": 1 if body.get("echo") else max(1, len(text.encode()))}
        return text, {"choices": [choice], "usage": usage}

    async def _deliver(self, writer: asyncio.StreamWriter, name: str, fault: str, answer: dict[str, Any]) -> bool:
        if fault == "malformed":
            return await _send_bytes(writer, 200, json.dumps(answer).encode()[:-9])
        if fault == "empty":
            return await _send_bytes(writer, 200, b"")
        if fault == "two":
            answer["choices"] *= 2
            return await _send(writer, 200, answer)
        if fault == "none":
            return await _send(writer, 200, {**answer, "choices": []})
        if fault in ("cut", "hang"):
            return False
        if fault == "half":
            content = json.dumps(answer).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content[: len(content) // 2])
            await writer.drain()
            return False
        if fault.startswith("usage"):
            answer["usage"] = {"usage-big": {"prompt_tokens": 10**9, "completion_tokens": 10**9}, "usage-none": None}.get(
                fault, {"prompt_tokens": -1, "completion_tokens": "many"}
            )
        self.answered[name] += 1
        return await _send(writer, 200, answer)


_ERROR = {"error": {"message": "not this time"}}
_STATUSES: dict[str, tuple[int, dict[str, Any], str | None]] = {
    "429": (429, _ERROR, None),
    "429-seconds": (429, _ERROR, "0"),
    "429-date": (429, _ERROR, "date"),
    "429-long": (429, _ERROR, "86400"),
    "quota": (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, None),
    "500": (500, _ERROR, None),
    "503": (503, _ERROR, None),
    "400": (400, {"error": {"message": TOO_LONG}}, None),
    "403": (403, _ERROR, None),
}


def _prompt(path: str, body: dict[str, Any]) -> tuple[str, int]:
    """The relevant words of a prompt, and its tokens."""
    if path == "/v1/chat/completions":
        turns = body["messages"]
        sizes = [4 + len(turn["role"]) + len(turn["content"].encode()) for turn in turns]
        return turns[-1]["content"], sum(sizes) + 1 + len("assistant\n")
    prompt = body["prompt"]
    return (prompt, len(prompt.encode())) if isinstance(prompt, str) else (json.dumps(prompt), len(prompt))


def _echoed(ids: list[int]) -> str:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return str(decoders.ByteLevel().decode([alphabet[token] for token in ids if token < 256]))


def _date() -> str:
    return email.utils.formatdate(usegmt=True)


async def _send(writer: asyncio.StreamWriter, status: int, said: Any, retry_after: str | None = None) -> bool:
    return await _send_bytes(writer, status, b"" if status == 204 else json.dumps(said).encode(), retry_after)


async def _send_bytes(writer: asyncio.StreamWriter, status: int, content: bytes, retry_after: str | None = None) -> bool:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    head += f"Retry-After: {retry_after}\r\n" if retry_after else ""
    writer.write(head.encode() + b"\r\n" + content)
    await writer.drain()
    return True


def scattered(seed: int, poison: set[str], too_long: set[str]) -> Plan:
    """Random faults of every kind on a row's first three sends; `poison` rows always fail, `too_long` ones are refused."""
    kinds = "429 429-seconds 429-date 500 503 cut half malformed empty two none slow usage-big usage-none usage-odd".split()

    def plan(prompt: str, before: int) -> str:
        if prompt in too_long:
            return "400"
        if prompt in poison:
            return "500"
        random = Random(f"{seed} {prompt} {before}")
        if before > 2 or random.random() > 0.3:
            return ""
        return "hang" if random.random() < 0.005 else random.choice(kinds)

    return plan


@contextlib.contextmanager
def nothing_listens() -> Iterator[str]:
    """The URL of a reserved port of this machine on which no process listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused, and no other process can take it
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def served_as_bytes(folder: Path) -> Path:
    """`folder` with the recipe's model, whose tokenizer has bytes as tokens, as the tests' server has."""
    model = Path(recipe(folder)["teacher"]["model"])
    config = (model / "config.json").read_text()
    byte_tokenizer(model)
    (model / "config.json").write_text(config)
    return folder
