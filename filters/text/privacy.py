"""Personal data and secrets by their form: e-mail and IP addresses, phone, card, account and identity numbers, keys.

Checks are applied if there are any (top-level domains for addresses, check digits for numbers, the registries' ranges for IP
addresses, entropy for keys), so that version numbers, dates and identifiers pass. Names and postal addresses have no
fixed form and are not found.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import pyarrow as pa

from limbeck.filters.columns import OCCURRENCES, Range, ranges_of, score_table
from limbeck.filters.config import FilterConfig, Limit, Name
from limbeck.filters.contract import Bound
from limbeck.filters.text.private_data import KINDS, find, redact

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

_REASONS = {
    "emails": "the output holds e-mail addresses",
    "phones": "the output holds phone numbers",
    "cards": "the output holds card numbers",
    "ibans": "the output holds bank account numbers",
    "identity_numbers": "the output holds identity numbers",
    "ip_addresses": "the output holds public IP addresses",
    "keys": "the output holds keys, tokens or passwords",
}
UNITS = dict.fromkeys((*KINDS, "found"), OCCURRENCES)


class PrivacyConfig(FilterConfig):
    """A bound on the total and one per kind; `redact` also stores the output with placeholders such as `<EMAIL>`."""

    semantics: ClassVar[int] = 2
    reasons: ClassVar[Mapping[str, str]] = {
        **{f"max_{column}": reason for column, reason in _REASONS.items()},
        "max_found": "the output holds personal data or keys",
    }

    also: ClassVar[tuple[str, ...]] = ("redacted",)

    kind: Literal["privacy"] = "privacy"
    name: Name = "privacy"
    redact: bool = False
    max_emails: Limit = None
    max_phones: Limit = None
    max_cards: Limit = None
    max_ibans: Limit = None
    max_identity_numbers: Limit = None
    max_ip_addresses: Limit = None
    max_keys: Limit = None
    max_found: Limit = 0.0

    @property
    def redacts(self) -> bool:
        """The field `redact`."""
        return self.redact

    def problems(self) -> list[str]:
        """Reports bounds that reject everything that would be redacted."""
        if self.redact and self.max_found == 0:
            return [f"filter {self.name} redacts, but max_found 0 rejects all that it redacts; set max_found: null"]
        return []

    @property
    def ranges(self) -> Mapping[str, Range]:
        """By their units."""
        return ranges_of(UNITS)

    def build(self, engines: "Engines") -> "PrivacyFilter":
        """Return the filter; it needs no engine."""
        return PrivacyFilter(self.name, self.bounds, redacting=self.redact)


class PrivacyFilter:
    """Searches for patterns; no model is called."""

    def __init__(self, name: str = "privacy", bounds: Sequence[Bound] = (), *, redacting: bool = False) -> None:
        self.name = name
        self.bounds = tuple(bounds)
        self._redacting = redacting

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return the number of matches of each kind, and `found` in total; one row per candidate. O(characters).

        With `redacting` the evidence `redacted` is the output with placeholders, null if there are no matches.
        """
        outputs = [output or "" for output in candidates["output"].to_pylist()]
        spans = [find(output) for output in outputs]
        counts = [Counter(span.kind for span in found) for found in spans]
        columns = {kind: pa.array([float(count[kind]) for count in counts], pa.float64()) for kind in KINDS}
        columns["found"] = pa.array([float(len(found)) for found in spans], pa.float64())
        if self._redacting:
            texts = [redact(output, found) if found else None for output, found in zip(outputs, spans, strict=True)]
            columns["redacted"] = pa.array(texts, pa.string())
        return score_table(candidates, columns, UNITS)
