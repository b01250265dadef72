"""Load an n-gram service like 64 concurrent users, new connections, mixed queries; print requests/s, p50, p99 and errors.

    limbeck ngram serve NAME=FOLDER --workers 2 &
    python benchmarks/ngram_load.py http://127.0.0.1:8000 --index NAME

The mix is 40 % count (1 to 10 tokens), 20 % prob (5), 20 % ∞-gram prob (64), 10 % next tokens (after 1 to 3), 10 % search.
Queries are cut from documents of the index, with one token in ten of the longer ones replaced, so that some do not occur.
`--api official` sends
`POST /`, which any server of the official web API supports (`--queries FILE` then reads the token ids from a saved file).
"""

import argparse
import asyncio
import json
import random
import time
import urllib.request
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

MIX = {"count": 40, "prob": 20, "infgram_prob": 20, "next": 10, "search": 10}
OFFICIAL = {"count": "count", "prob": "prob", "infgram_prob": "infgram_prob", "next": "ntd", "search": "search_docs"}
KINDS = 4000  # different requests, prepared before timing starts


def texts_of(url, index, seed):
    """Token ids of random windows of documents."""
    body = json.dumps({"ids": [], "limit": 100, "max_tokens": 400, "seed": seed}).encode()
    request = urllib.request.Request(f"{url}/v1/{index}/search", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [document["ids"] for document in json.load(answer)["documents"]]


def query(kind, texts, random_):
    text = random_.choice(texts)
    size = {"count": random_.randint(1, 10), "prob": 5, "infgram_prob": 64, "next": random_.randint(1, 3), "search": 5}[kind]
    begin = random_.randrange(max(1, len(text) - size))
    ids = text[begin : begin + size]
    if size > 3:
        ids = [random_.choice(random_.choice(texts)) if random_.random() < 0.1 else token for token in ids]
    return ids


def request_bytes(host, path, body):
    data = json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*head, "Connection: close", "", ""]).encode() + data


def prepare(host, base, index, api, texts, seed):
    random_ = random.Random(seed)
    kinds = random_.choices(list(MIX), list(MIX.values()), k=KINDS)
    requests = []
    for kind in kinds:
        ids = query(kind, texts, random_)
        if api == "official":
            extra = {"maxnum": 1, "max_disp_len": 100} if kind == "search" else {}
            requests.append(
                (kind, request_bytes(host, f"{base}/", {"index": index, "query_type": OFFICIAL[kind], "query_ids": ids, **extra}))
            )
        else:
            extra = {"limit": 1, "max_tokens": 100} if kind == "search" else {}
            requests.append((kind, request_bytes(host, f"{base}/v1/{index}/{kind}", {"ids": ids, **extra})))
    return requests


async def client(address, requests, first, until, seconds, errors):
    at = first
    while time.perf_counter() < until:
        kind, data = requests[at % len(requests)]
        at += 1
        started = time.perf_counter()
        try:
            async with asyncio.timeout(60):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(data)
                answer = await reader.read(-1)
                writer.close()
        except (OSError, TimeoutError) as error:
            errors[type(error).__name__] += 1
            continue
        seconds.append((kind, time.perf_counter() - started))
        if not answer.startswith(b"HTTP/1.1 200") or b'\r\n\r\n{"error"' in answer:
            errors[answer.split(b"\r\n", 1)[0].decode(errors="replace")] += 1


async def load(address, requests, clients, duration):
    seconds, errors = [], Counter()
    until = time.perf_counter() + duration
    step = len(requests) // clients
    started = time.perf_counter()
    await asyncio.gather(*(client(address, requests, n * step, until, seconds, errors) for n in range(clients)))
    return seconds, errors, time.perf_counter() - started


def figures(seconds):
    ordered = sorted(seconds)
    return [1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("url")
    parser.add_argument("--index", required=True)
    parser.add_argument("--api", choices=["typed", "official"], default="typed")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--queries", type=Path, help="a JSON file of lists of token ids to cut queries from")
    parser.add_argument("--save-queries", type=Path, help="write those lists, for another server of the same index")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    url = urlsplit(given.url)
    texts = json.loads(given.queries.read_text()) if given.queries else texts_of(given.url.rstrip("/"), given.index, given.seed)
    texts = [text for text in texts if len(text) > 80] or texts
    if given.save_queries:
        given.save_queries.write_text(json.dumps(texts))
    requests = prepare(url.netloc, url.path.rstrip("/"), given.index, given.api, texts, given.seed)
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    seconds, errors, wall = run(load((url.hostname, url.port or 80), requests, given.clients, given.seconds))
    p50, p99 = figures([one for _, one in seconds])
    found = {
        "requests": len(seconds),
        "requests_per_second": len(seconds) / wall,
        "p50_ms": p50,
        "p99_ms": p99,
        "errors": dict(errors),
    }
    by_kind = {kind: [one for name, one in seconds if name == kind] for kind in MIX}
    found["by_kind"] = {
        kind: dict(zip(("p50_ms", "p99_ms"), figures(values), strict=True)) for kind, values in by_kind.items() if values
    }
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{len(seconds):,} requests in {wall:.1f} s: {found['requests_per_second']:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    for kind, times in found["by_kind"].items():
        print(f"  {kind:13} p50 {times['p50_ms']:7.1f} ms   p99 {times['p99_ms']:7.1f} ms")
    print(f"errors: {dict(errors) or 'none'}")


if __name__ == "__main__":
    main()
