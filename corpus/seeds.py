"""Seeds and ids that depend on the identity of a row, never on parts, scheduling or the number of workers."""

import hashlib
import json


def derive_seed(*parts: str | int) -> int:
    """A seed in [0, 2**63) from the identity of the draw, for example (run seed, round, source_id, sample)."""
    return int(derive_id(*parts), 16) >> 1


def derive_id(*parts: str | int) -> str:
    """An id of 16 hexadecimal digits (BLAKE2b) from the identity of the row."""
    # JSON distinguishes ("a", "bc") from ("ab", "c"), and 1 from "1"
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()
