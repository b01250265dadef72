"""Two web services under load: ours, and the official engine behind Flask with ten processes, as its authors serve it.

    python -m benchmarks.ngram_http WORK --peer-python PYTHON [--runs 5] [--seconds 8] [--load-seconds 60]

WORK is a folder made by benchmarks/ngram.py. 64 clients send requests without a pause, each on a new connection, the mix of
benchmarks/ngram_load.py by token ids, `POST /` of both. The services alternate; the clients are one process on the same machine,
whose cost is part of both figures. The load run is ours alone, while other clients send garbage, 10 MB, or disconnect.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ngram_load
from benchmarks.ngram import machine

CLIENTS = 64
_FLASK = """
import sys
from flask import Flask, jsonify, request
from infini_gram.engine import InfiniGramEngine
engine = InfiniGramEngine(sys.argv[1], eos_token_id=0, ds_prefetch_depth=0, sa_prefetch_depth=0, od_prefetch_depth=0)
app = Flask(__name__)
def answer(query_type, ids, **options):
    if query_type in ("prob", "infgram_prob"):
        return getattr(engine, query_type)(prompt_ids=ids[:-1], cont_id=ids[-1])
    if query_type == "ntd":
        return engine.ntd(prompt_ids=ids, **options)
    return getattr(engine, query_type)(input_ids=ids, **options)
@app.route("/", methods=["POST"])
def query():
    data = request.get_json()
    del data["index"]
    return jsonify(answer(data.pop("query_type"), data.pop("query_ids"), **data)), 200
import logging
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app.run(host="127.0.0.1", port=int(sys.argv[2]), threaded=False, processes=10)
"""
_OURS = """
import sys
from limbeck.infinigram.service.served import IndexSpec
from limbeck.infinigram.service.app import ServiceConfig, serve
if __name__ == "__main__":
    serve(ServiceConfig((IndexSpec(name="bench", paths=(sys.argv[1],)),)), "127.0.0.1", int(sys.argv[2]), 2, lambda address: None)
"""


def main() -> None:
    """Measure alternately and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--load-seconds", type=float, default=60)
    parser.add_argument("--port", type=int, default=8431)
    arguments = parser.parse_args()
    texts = np.load(arguments.work / "workload.npz")["context500"].tolist()
    requests = ngram_load.prepare("localhost", "", "bench", "official", texts, 1)
    servers = {
        "official": [str(arguments.peer_python), "-c", _FLASK, str(arguments.work / "official")],
        "ours": [sys.executable, str(_script(arguments.work)), str(arguments.work / "ours")],
    }
    print(machine(), flush=True)
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for run in range(arguments.runs):
        for name, command in servers.items():
            with served([*command, str(arguments.port)], arguments.port):
                rate, words = asyncio.run(clients(requests, arguments.port, arguments.seconds))
            rates[name].append(rate)
            print(f"run {run}, {name}: {words}", flush=True)
    ratios = np.array(rates["ours"]) / np.array(rates["official"])
    print(f"ratio of rates {np.mean(rates['ours']) / np.mean(rates['official']):.1f} ({ratios.min():.1f} to {ratios.max():.1f})")
    with served([*servers["ours"], str(arguments.port)], arguments.port):
        _, words = asyncio.run(clients(requests, arguments.port, arguments.load_seconds, nuisances=4))
    print(f"{arguments.load_seconds:.0f} s with 4 misbehaving clients: {words}")


def _script(work: Path) -> Path:
    path = work / "serve_ours.py"  # workers are spawned, which needs a file
    path.write_text(_OURS)
    return path


@contextlib.contextmanager
def served(command: list[str], port: int) -> Iterator[None]:
    """A service in its own process, yielded when it responds and stopped afterwards."""
    search_path = os.pathsep.join(filter(None, sys.path)) if command[0] == sys.executable else ""
    environment = {**os.environ, "PYTHONPATH": search_path}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        asyncio.run(_until_up(port, process))
        yield
    finally:
        os.killpg(process.pid, 15)
        process.wait()
        time.sleep(1)


async def _until_up(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await asyncio.sleep(1)
            return
        if process.poll() is not None:
            break
        await asyncio.sleep(0.1)
    raise SystemExit("the service did not start; see its output above")


async def clients(requests: list[Any], port: int, seconds: float, nuisances: int = 0) -> tuple[float, str]:
    """64 clients without a pause, and `nuisances` misbehaving ones: responses per second, and the figures as text."""
    troubling = [asyncio.create_task(_nuisance(number, port)) for number in range(nuisances)]
    found, errors, wall = await ngram_load.load(("127.0.0.1", port), requests, CLIENTS, seconds)
    for task in troubling:
        task.cancel()
    rate = len(found) / wall
    p50, p99 = ngram_load.figures([one for _, one in found])
    return rate, f"{rate:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, errors: {dict(errors) or 'none'}"


async def _nuisance(number: int, port: int) -> None:
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(_misbehave(number % 3, port), 5)
        await asyncio.sleep(0.05)


async def _misbehave(kind: int, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if kind == 0:
            writer.write(os.urandom(2000) + b"\r\n\r\n")
            await reader.read(-1)
        elif kind == 1:
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + bytes(10_000_000))
            await writer.drain()
            await reader.read(100)
        else:
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{")  # and gone
    finally:
        writer.close()


if __name__ == "__main__":
    main()
