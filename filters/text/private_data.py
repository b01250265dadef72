"""Finding personal data and secrets in a text by their form, and redacting them. Pure functions of the text."""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

PLACEHOLDERS: Mapping[str, str] = {
    "keys": "<KEY>",
    "emails": "<EMAIL>",
    "ibans": "<IBAN>",
    "cards": "<CARD>",
    "ip_addresses": "<IP_ADDRESS>",
    "phones": "<PHONE>",
}
"""Kind → its placeholder when redacted. If two kinds overlap, the first in this order wins."""

KINDS = ("emails", "phones", "cards", "ibans", "ip_addresses", "keys")

_MIN_ENTROPY_BITS = 3.0  # per character, of a value assigned to a secret's name; prose and paths repeat letters more
_IBAN_CHARACTERS = (15, 34)
_PHONE_DIGITS = (8, 15)  # E.164


@dataclass(frozen=True)
class Span:
    """Characters [begin, end) of a text, and the kind of data they are."""

    kind: str
    begin: int
    end: int


def find(text: str) -> list[Span]:
    """The matches in a text, left to right, without overlaps. O(characters)."""
    taken: list[Span] = []
    free = text
    for kind in PLACEHOLDERS:
        for pattern, is_one in _RULES[kind]:
            new = [Span(kind, *match.span("it")) for match in pattern.finditer(free) if is_one(match)]
            taken += new
            free = _blanked(free, new)
    return sorted(taken, key=lambda span: span.begin)


def redact(text: str, spans: Sequence[Span] | None = None) -> str:
    """The text with a placeholder such as `<EMAIL>` for each of `spans` (as returned by `find`; None: find them)."""
    pieces = []
    end = 0
    for span in find(text) if spans is None else spans:
        pieces += [text[end : span.begin], PLACEHOLDERS[span.kind]]
        end = span.end
    return "".join([*pieces, text[end:]])


def luhn(digits: str) -> bool:
    """Whether the check digit of a card number is valid (ISO/IEC 7812-1)."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def mod_97(account: str) -> bool:
    """Whether the check digits of an IBAN, without spaces, are valid (ISO 13616)."""
    moved = account[4:] + account[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def entropy_bits(text: str) -> float:
    """The Shannon entropy of a text's characters, in bits per character; 0 for an empty text."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def _blanked(text: str, spans: Sequence[Span]) -> str:
    """The text with each character of `spans` replaced by one that no pattern matches."""
    pieces = []
    end = 0
    for span in spans:
        pieces += [text[end : span.begin], "\0" * (span.end - span.begin)]
        end = span.end
    return "".join([*pieces, text[end:]])


_Match = re.Match[str]
_DIGIT = re.compile(r"\D")


def _always(match: _Match) -> bool:
    return True


def _is_email(match: _Match) -> bool:
    """Excludes the user part of a URL and domains reserved for examples (RFC 2606)."""
    before = match.string[max(0, match.start("it") - _AROUND_CHARACTERS) : match.start("it")]
    if _URL_USER.search(before):
        return False
    domain = match["domain"].lower()
    local = match["local"]
    reserved = re.search(r"(?:^|\.)(?:example\.(?:com|net|org)|example|invalid|test|localhost|local)$", domain)
    return reserved is None and ".." not in local and not local.startswith(".") and not local.endswith(".")


def _is_card(match: _Match) -> bool:
    digits = _DIGIT.sub("", match["it"])
    return _CARD.fullmatch(digits) is not None and luhn(digits)


def _is_iban(match: _Match) -> bool:
    account = match["it"].replace(" ", "")
    return _IBAN_CHARACTERS[0] <= len(account) <= _IBAN_CHARACTERS[1] and mod_97(account)


def _is_public_v4(match: _Match) -> bool:
    """Four small numbers are probably a section or a version, unless a networking term is next to them."""
    try:
        address = ipaddress.IPv4Address(match["it"])
    except ValueError:
        return False
    if not address.is_global or address.is_multicast:
        return False
    begin, end = match.span("it")
    around = match.string[max(0, begin - _AROUND_CHARACTERS) : end + _AROUND_CHARACTERS]
    return max(address.packed) >= _SECTION_PARTS or _NETWORK.search(around) is not None


def _is_public_v6(match: _Match) -> bool:
    """In the block allocated to the public, 2000::/3, which excludes `std::` and times."""
    try:
        address = ipaddress.IPv6Address(match["it"])
    except ValueError:
        return False
    return address.is_global and address in _PUBLIC_V6


def _is_international(match: _Match) -> bool:
    return _PHONE_DIGITS[0] <= len(_DIGIT.sub("", match["it"])) <= _PHONE_DIGITS[1]


def _is_announced(match: _Match) -> bool:
    digits = len(_DIGIT.sub("", match["it"]))
    return 6 <= digits <= _PHONE_DIGITS[1] and _DATE.fullmatch(match["it"].strip()) is None


def _is_credential(match: _Match) -> bool:
    return _PLACEHOLDER.fullmatch(match["it"]) is None


def _is_secret(match: _Match) -> bool:
    """Mixed letters and digits with few repeats: not a word, path or placeholder such as `your_password_here`."""
    value = match["it"]
    mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    return mixed and entropy_bits(value) >= _MIN_ENTROPY_BITS


_AROUND_CHARACTERS = 40
_SECTION_PARTS = 32
_URL_USER = re.compile(r"://[^\s/@]{0,40}$")
_NETWORK = re.compile(r"\b(?:ip|ipv4|address|addr|host|server|dns|nameserver|resolver|ping|port|gateway|proxy|subnet)\b", re.I)
_PLACEHOLDER = re.compile(r"(?:my|your|the|some|user)?[_-]?(?:pass(?:word|wd)?|pwd|secret|token|key)\d{0,3}|x+|\*+|\.+", re.I)
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_CARD = re.compile(  # Visa; Mastercard; American Express; Diners Club; JCB; Discover, UnionPay
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|35\d{14}|6\d{15,18}"
)
_DATE = re.compile(r"\d{4}[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ]\d{2,4}")

_Rule = tuple[re.Pattern[str], Callable[[_Match], bool]]

_TOKENS = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",  # Amazon Web Services
    r"gh[pousr]_[A-Za-z0-9]{36,255}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{50,255}",
    r"glpat-[A-Za-z0-9_-]{20,64}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",  # Slack
    r"AIza[A-Za-z0-9_-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_-]{20,500}",
    r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,250}",  # Stripe
    r"sk-(?:[a-z]{3,10}[0-9]{0,2}-)?[A-Za-z0-9_-]{20,250}",  # OpenAI, Anthropic
    r"hf_[A-Za-z]{30,40}",  # Hugging Face
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_-]{50,500}",
    r"SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}",  # SendGrid
    r"eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000}",  # JSON Web Token
)
_SECRET_NAME = r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|(?:api|access|auth|private|secret|signing)[_ -]?key)"
_PHONE_NAME = r"(?:tel|phone|telephone|telefon|t[ée]l[ée]phone|mobile|fax|call|whatsapp|sms)"
_PEM = r"(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"


def _rules(*patterns: tuple[str, Callable[[_Match], bool]], flags: int = 0) -> tuple[_Rule, ...]:
    """Each pattern with its check; the match is the group `it`."""
    return tuple((re.compile(pattern, flags), check) for pattern, check in patterns)


_RULES: Mapping[str, Sequence[_Rule]] = {
    "keys": (
        *_rules(
            (rf"(?P<it>-----BEGIN {_PEM}(?:(?!-----)[\s\S])*(?:-----END {_PEM})?)", _always),
            (rf"(?<![A-Za-z0-9_-])(?P<it>{'|'.join(_TOKENS)})(?![A-Za-z0-9_-])", _always),
            (r"\b[a-z][a-z0-9+.-]{1,15}://[^\s:/@\0]{1,64}:(?P<it>[^\s:/@\0]{3,128})@", _is_credential),
        ),
        *_rules(
            (
                rf"{_SECRET_NAME}[\"'`]?(?: {{0,3}}(?::=|[:=]) {{0,3}}| is )[\"'`]?"
                r"(?P<it>[A-Za-z0-9+/_.~!@#$%^&*=-]{8,200})",
                _is_secret,
            ),
            flags=re.IGNORECASE,
        ),
    ),
    "emails": _rules(
        (
            r"(?<![\w.%+-])(?P<it>(?P<local>[\w.%+-]{1,64})@"
            r"(?P<domain>(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}))(?![A-Za-z0-9-])",
            _is_email,
        )
    ),
    "ibans": _rules(
        (r"(?<![A-Za-z0-9])(?P<it>[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)(?![A-Za-z0-9])", _is_iban)
    ),
    "cards": _rules(
        (
            r"(?<![\w.+-])(?<![A-Z]{2}\d\d )(?P<it>[2-6]\d{12,18}"
            r"|[2-6]\d{3}(?:([ -])\d{4}(?:\2\d{4}){2}(?:\2\d{3})?|[ -]\d{6}[ -]\d{4,5}))(?![\w-]|\.\d)",
            _is_card,
        )
    ),
    "ip_addresses": _rules(
        (r"(?<![\w.-])(?<!ersion )(?<!elease )(?P<it>(?:\d{1,3}\.){3}\d{1,3})(?![\w-]|\.\d)", _is_public_v4),
        (r"(?<![\w:.])(?P<it>(?:[0-9A-Fa-f]{1,4}:{1,2}){2,7}(?:[0-9A-Fa-f]{1,4})?)(?![\w:]|\.\w)", _is_public_v6),
    ),
    "phones": (
        *_rules(
            (r"(?<![\w+.])(?P<it>\+[1-9](?:[ ./-]?\(?\d\)?){7,14})(?!\w)", _is_international),
            (  # North American
                r"(?<![\w.+/-])(?P<it>(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[.-]\d{4})(?![\w-]|\.\d)",
                _always,
            ),
        ),
        *_rules(
            (
                rf"\b{_PHONE_NAME}\b[.:]{{0,2}} {{0,2}}(?:(?:me|us|at|on|number|is|no\.?)[.:]? {{1,2}}){{0,3}}"
                r"(?P<it>\(?\d(?:[ ./()-]{0,2}\d){5,14})(?![\w-]|\.\d)",
                _is_announced,
            ),
            flags=re.IGNORECASE,
        ),
    ),
}
