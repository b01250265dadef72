"""Finding personal data and secrets in a text by their form, and redacting them. Pure functions of the text.

Patterns are matched on a folded copy of the text (`limbeck.filters.text.folding`), so a zero-width space in an address or
full-width digits hide nothing; spans refer to the original.
"""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from limbeck.filters.text import identity_numbers
from limbeck.filters.text.folding import Folded
from limbeck.filters.text.identity_numbers import luhn
from limbeck.filters.text.registries import ASCII_DOMAINS, IBAN_LENGTHS, SPACED_DOMAINS, UNSPACED_DOMAINS

PLACEHOLDERS: Mapping[str, str] = {
    "keys": "<KEY>",
    "emails": "<EMAIL>",
    "ibans": "<IBAN>",
    "identity_numbers": "<IDENTITY_NUMBER>",
    "cards": "<CARD>",
    "ip_addresses": "<IP_ADDRESS>",
    "phones": "<PHONE>",
}
"""Kind → its placeholder when redacted. If two kinds overlap, the first in this order wins."""

KINDS = ("emails", "phones", "cards", "ibans", "identity_numbers", "ip_addresses", "keys")

_MIN_ENTROPY_BITS = 3.0  # per character, of a secret; prose and paths repeat letters more
_MIN_SWITCHES = 0.2  # per character, between small letters, capitals, digits and others; names of packages have fewer
_PHONE_DIGITS = (8, 15)  # E.164


@dataclass(frozen=True)
class Span:
    """Characters [begin, end) of a text, and the kind of data they are."""

    kind: str
    begin: int
    end: int


def find(text: str) -> list[Span]:
    """The matches in a text, left to right, without overlaps. O(characters)."""
    folded = Folded(text)
    taken: list[Span] = []
    free = folded.text
    for kind in PLACEHOLDERS:
        rules = [rule for gate, gated in _RULES[kind] if gate.search(free) for rule in gated]
        for pattern, is_one in rules:
            new = [Span(kind, *match.span("it")) for match in pattern.finditer(free) if is_one(match)]
            taken += new
            free = _blanked(free, new)
    return [Span(span.kind, *folded.span(span.begin, span.end)) for span in sorted(taken, key=lambda span: span.begin)]


def redact(text: str, spans: Sequence[Span] | None = None) -> str:
    """The text with a placeholder such as `<EMAIL>` for each of `spans` (as returned by `find`; None: find them)."""
    pieces = []
    end = 0
    for span in find(text) if spans is None else spans:
        pieces += [text[end : span.begin], PLACEHOLDERS[span.kind]]
        end = span.end
    return "".join([*pieces, text[end:]])


def mod_97(account: str) -> bool:
    """Whether the check digits of an IBAN, without spaces, are valid (ISO 13616). Upper and lower case are the same."""
    moved = account[4:] + account[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def entropy_bits(text: str) -> float:
    """The Shannon entropy of a text's characters, in bits per character; 0 for an empty text."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def switches(text: str) -> float:
    """Changes between small letters, capitals, digits and other characters, per character: about 0.6 in a random token."""
    kinds = [1 if "a" <= c <= "z" else 2 if "A" <= c <= "Z" else 3 if "0" <= c <= "9" else 4 for c in text]
    return sum(one != other for one, other in zip(kinds, kinds[1:], strict=False)) / max(1, len(text))


def _blanked(text: str, spans: Sequence[Span]) -> str:
    """The text with each character of `spans` replaced by one that no pattern matches."""
    if not spans:
        return text
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
    """Excludes logins (the user of a URL, of `host:path`, or after ssh) and domains reserved for examples (RFC 2606)."""
    begin, end = match.span("it")
    before = match.string[max(0, begin - _AROUND_CHARACTERS) : begin]
    if _URL_USER.search(before) or _REMOTE_SHELL.search(before) or _REMOTE_PATH.match(match.string, end):
        return False
    local = match["local"].lower()
    if local in _LOGINS or _RESERVED_DOMAIN.search(match["domain"].lower()):
        return False
    return ".." not in local and not local.startswith(".") and not local.endswith(".")


def _is_card(match: _Match) -> bool:
    digits = _DIGIT.sub("", match["it"])
    return _CARD.fullmatch(digits) is not None and luhn(digits)


def _is_iban(match: _Match) -> bool:
    return mod_97(match["it"].replace(" ", "").replace("-", ""))


def _is_public_v4(match: _Match) -> bool:
    """Small numbers are probably a section, numbers after a word or a product's name a version; a networking term decides."""
    try:
        address = ipaddress.IPv4Address(match["it"])
    except ValueError:
        return False
    if not address.is_global or address.is_multicast:
        return False
    begin, end = match.span("it")
    before, after = match.string[max(0, begin - _AROUND_CHARACTERS) : begin], match.string[end : end + _AROUND_CHARACTERS]
    if _VERSION.search(before):
        return False
    return max(address.packed) >= _SECTION_PARTS or _NETWORK.search(before + match["it"] + after) is not None


def _is_public_v6(match: _Match) -> bool:
    """In the block allocated to the public, 2000::/3, which excludes `std::` and times."""
    try:
        address = ipaddress.IPv6Address(match["it"])
    except ValueError:
        return False
    return address.is_global and address in _PUBLIC_V6


def _is_international(match: _Match) -> bool:
    digits = _DIGIT.sub("", match["it"]).removeprefix("00")
    return _PHONE_DIGITS[0] <= len(digits) <= _PHONE_DIGITS[1]


def _is_announced(match: _Match) -> bool:
    digits = len(_DIGIT.sub("", match["it"]))
    return 6 <= digits <= _PHONE_DIGITS[1] and _DATE.fullmatch(match["it"].strip()) is None


def _is_credential(match: _Match) -> bool:
    return _PLACEHOLDER.fullmatch(match["it"]) is None


def _is_varied(match: _Match) -> bool:
    """Letters of both cases, or letters and digits, with few repeats; not a placeholder such as x, repeated."""
    value = match["it"]
    if value.startswith("AKIA"):  # the prefix is enough, and one in thirty has no digit
        return True
    cases = any(map(str.islower, value)) + any(map(str.isupper, value)) + any(map(str.isdigit, value))
    return cases >= 2 and entropy_bits(value) >= _MIN_ENTROPY_BITS


def _is_random(match: _Match) -> bool:
    """Also with digits, and unlike words joined by hyphens or underscores, some of them with a number."""
    body = match["body"]
    joined = body.replace("-", "").replace("_", "")
    return _is_varied(match) and any(map(str.isdigit, body)) and (joined == body or switches(joined) >= _MIN_SWITCHES)


def _is_secret(match: _Match) -> bool:
    """Mixed letters and digits with few repeats: not a word, path, name in code or placeholder such as `your_password_here`."""
    value = match["it"]
    mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    if not mixed or entropy_bits(value) < _MIN_ENTROPY_BITS:
        return False
    if match["prose"] and switches(value) < _MIN_SWITCHES:  # "the secret is AES256-encrypted"
        return False
    called = match.string[match.end("it") : match.end("it") + 1] in ("(", "[")
    return not (called or _NAME_IN_CODE.fullmatch(value) or _PLACEHOLDER.fullmatch(value) or _FILLED_IN.search(value))


_AROUND_CHARACTERS = 40
_SECTION_PARTS = 32
_URL_USER = re.compile(r"://[^\s/@]{0,40}$")
_REMOTE_SHELL = re.compile(r"\b(?:ssh|sftp|slogin|mosh)(?: {1,3}-\w(?: ?\d{1,5})?){0,3} {1,3}$")
_REMOTE_PATH = re.compile(r":(?:[^\s:/~]{0,100}[/~]|[^\s:]{1,100}\.git\b)")
_LOGINS = frozenset(("git", "hg", "svn"))
_RESERVED_DOMAIN = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|invalid|test|localhost|local)$")
_NETWORK = re.compile(r"\b(?:ip|ipv4|address|addr|host|server|dns|nameserver|resolver|ping|port|gateway|proxy|subnet)\b", re.I)
_VERSION = re.compile(r"(?:\b(?:version|release|build|firmware|driver|revision|rev)s?[ :=]{1,3}v?|[A-Za-z]/)$", re.I)
_PLACEHOLDER = re.compile(
    r"(?:my|your|the|some|user)?[_-]?(?:pass(?:word|wd)?|pwd|secret|token|key)\d{0,3}|x+|\*+|\.+|\$\{?\w+\}?|\{.*\}|<.*>|%.*%",
    re.I,
)
_FILLED_IN = re.compile(r"your|example|placeholder|change[_-]?me|dummy|xxxx|insert", re.I)
_NAME_IN_CODE = re.compile(r"[a-z]+\d*(?:[._-](?:[a-z]+\d*|\d+))+|[A-Za-z_]+(?:\.[A-Za-z_]\w*)+")
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_CARD = re.compile(  # Visa; Mastercard; American Express; Diners Club; JCB; Discover, UnionPay
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|35\d{14}|6\d{15,18}"
)
_DATE = re.compile(r"\d{4}[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ]\d{2,4}")

_Rule = identity_numbers.Rule

_TOKENS = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",  # Amazon Web Services
    r"gh[pousr]_[A-Za-z0-9]{36,255}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{50,255}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",  # Slack
    r"AIza[A-Za-z0-9_-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_-]{20,500}",
    r"GOCSPX-[A-Za-z0-9_-]{28}",
    r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,250}",  # Stripe
    r"hf_[A-Za-z0-9]{30,40}",  # Hugging Face
    r"gsk_[A-Za-z0-9]{40,60}",  # Groq
    r"npm_[A-Za-z0-9]{36}",
    r"dop_v1_[a-f0-9]{64}",  # DigitalOcean
    r"shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}",  # Shopify
    r"pypi-AgE[A-Za-z0-9_-]{50,500}",
    r"SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}",  # SendGrid
    r"\d{8,10}:AA[A-Za-z0-9_-]{33}",  # Telegram
    r"eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000}",  # JSON Web Token
)
_PREFIXED = (  # their prefixes also begin names: `sk-learn-...`
    r"sk-(?:[a-z]{3,10}[0-9]{0,2}-)?(?P<body>[A-Za-z0-9_-]{20,250})",  # OpenAI, Anthropic
    r"glpat-(?P<body>[A-Za-z0-9_-]{20,64})",  # GitLab
)
_SECRET_NAME = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|(?:api|access|auth|private|secret|signing)[_ -]?key"
    r"|passwort|kennwort|wachtwoord|contraseña|senha|mot de passe|пароль|密码|密碼|口令|パスワード|비밀번호)"
)
_SECRET_WORD = re.compile(
    r"(?i:pass|pwd|secre|token|credent|key|kennw|wachtw|contra|senha|mot de)|пароль|Пароль|密|口令|パスワード|비밀번호"
)
_ASSIGNED = r" {0,3}(?::=|[:=]) {0,3}"
_SECRET_VALUE = r"(?P<it>[A-Za-z0-9+/_.~!@#$%^&*=-]{8,200})"
_PHONE_NAME = (
    r"(?:(?<![^\W_])(?:tel|phone|telephone|telefono?|teléfono|telefone|t[ée]l[ée]phone|mobile|mobil|cell|handy|fax|call|whatsapp"
    r"|sms|телефон|тел|факс|هاتف|फ़ोन|फोन)(?![^\W_])|电话|電話|手机|手機|携帯|传真|(?:전화|휴대폰)(?:번호)?)(?:号码|號碼|番号|是|为|は|는)?"
)
_PHONE_JOINTS = r"[.:]{0,2} {0,2}(?:(?:me|us|at|on|number|is|no\.?)[.:]? {1,2}){0,3}"
_PEM = r"(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
"""Scripts in which a word may directly follow another (and Korean, whose particles do)."""
_SPACED = (  # letters and vowel signs of other scripts than Latin's ASCII, without their punctuation
    "\u00c0-\u037d\u037f-\u0386\u0388-\u0588\u0591-\u060b\u060d-\u061a\u0620-\u06d3\u06d5-\u0963\u0966-\u0dff\u10a0-\u10ff"
    "\u1e00-\u1fff"
)
_LOCAL = rf"[A-Za-z0-9_.%+{_SPACED}-]"
_LABEL = "[A-Za-z0-9{0}](?:[A-Za-z0-9{0}-]{{0,61}}[A-Za-z0-9{0}])?".format(_SPACED + _UNSPACED)
_ASCII_DOMAIN = rf"(?i:{'|'.join(ASCII_DOMAINS)}|xn--[a-z0-9-]{{2,59}})(?![A-Za-z0-9_-]|\.[a-z0-9])"
_TOP_DOMAIN = rf"(?:{_ASCII_DOMAIN}|(?:{'|'.join(SPACED_DOMAINS)})(?![{_SPACED}])|{'|'.join(UNSPACED_DOMAINS)})"
_DOMAIN = rf"(?P<domain>(?:{_LABEL}\.){{1,8}}{_TOP_DOMAIN})"


_AT = r"(?:\[ ?at ?\]|\( ?at ?\))"
_SPELLED_OUT = (
    rf"(?<![\w.%+-])(?P<it>(?P<local>[\w.%+-]{{1,64}}) ?{_AT} ?"
    rf"(?P<domain>(?:[A-Za-z0-9-]{{1,63}}(?:\.| ?(?:\[ ?dot ?\]|\( ?dot ?\)) ?)){{1,8}}{_ASCII_DOMAIN}))"
)


def _rules(*patterns: tuple[str, Callable[[_Match], bool]], flags: int = 0) -> tuple[_Rule, ...]:
    """Each pattern with its check; the match is the group `it`."""
    return tuple((re.compile(pattern, flags), check) for pattern, check in patterns)


def _token(pattern: str) -> str:
    return rf"(?<![A-Za-z0-9_-])(?P<it>{pattern})(?![A-Za-z0-9_-])"


def _iban(length: int, countries: str) -> str:
    """An IBAN in one piece or in groups of four; `length` in characters, without spaces."""
    groups, rest = divmod(length - 4, 4)
    separator = f"(?P=by_{length})"
    last = f"{separator}[A-Z0-9]{{{rest}}}" if rest else ""
    first = rf"(?:{countries.replace(' ', '|')})\d\d(?P<by_{length}>[ -]?)[A-Z0-9]{{4}}"
    return rf"{first}(?:{separator}[A-Z0-9]{{4}}){{{groups - 1}}}{last}"


_Gated = tuple[re.Pattern[str], Sequence[_Rule]]
"""What a text must contain for the rules to find anything, which is faster to search for, and the rules."""

_RULES: Mapping[str, Sequence[_Gated]] = {
    "keys": (
        (
            re.compile("-----BEGIN"),
            _rules((rf"(?P<it>-----BEGIN {_PEM}(?:(?!-----)[\s\S])*(?:-----END {_PEM})?)", _always)),
        ),
        (re.compile(r"\w{10}"), _rules((_token("|".join(_TOKENS)), _is_varied))),
        (re.compile("sk-|glpat-"), _rules(*((_token(pattern), _is_random) for pattern in _PREFIXED))),
        (
            re.compile("://"),
            _rules((r"\b[a-z][a-z0-9+.-]{1,15}://[^\s:/@\0]{1,64}:(?P<it>[^\s:/@\0]{3,128})@", _is_credential)),
        ),
        (
            _SECRET_WORD,
            _rules(
                (rf"{_SECRET_NAME}[\"'`]?(?:{_ASSIGNED}|(?P<prose> is ))[\"'`]?{_SECRET_VALUE}", _is_secret), flags=re.IGNORECASE
            ),
        ),
    ),
    "emails": (
        (
            re.compile("@"),
            _rules(
                (rf"(?<!{_LOCAL})(?<!@)(?P<it>(?P<local>{_LOCAL}{{1,64}})@{_DOMAIN})", _is_email),
                (rf"(?<![{_UNSPACED}])(?<!{_LOCAL})(?P<it>(?P<local>[{_UNSPACED}]{{1,64}})@{_DOMAIN})", _is_email),
            ),
        ),
        (re.compile(rf"{_AT}", re.IGNORECASE), _rules((_SPELLED_OUT, _is_email), flags=re.IGNORECASE)),
    ),
    "ibans": (
        (
            re.compile(r"[A-Za-z]{2}\d\d[ -]?[A-Za-z0-9]{4}"),
            _rules(
                (
                    r"(?<![A-Za-z0-9])(?=[A-Z]{2}\d\d)"
                    rf"(?P<it>{'|'.join(_iban(length, countries) for length, countries in IBAN_LENGTHS.items())})(?![A-Za-z0-9])",
                    _is_iban,
                ),
                flags=re.IGNORECASE,
            ),
        ),
    ),
    "identity_numbers": ((re.compile(r"\d(?:[^\d\s]{0,2} ?\d){4}|[A-Za-z]\d\d[A-Za-z]\d", re.ASCII), identity_numbers.RULES),),
    "cards": (
        (
            re.compile(r"\d(?:[ .-]?\d){11}", re.ASCII),
            _rules(
                (
                    r"(?<![\w.+-])(?<![A-Za-z]{2}\d\d )(?P<it>[2-6]\d{12,18}"
                    r"|[2-6]\d{3}(?:([ .-])\d{4}(?:\2\d{4}){2}(?:\2\d{3})?|[ .-]\d{6}[ .-]\d{4,5}))(?![\w-]|\.\d)",
                    _is_card,
                ),
                flags=re.ASCII,
            ),
        ),
    ),
    "ip_addresses": (
        (
            re.compile(r"\d\.\d{1,3}\.", re.ASCII),
            _rules((r"(?<![\w.-])(?P<it>(?:\d{1,3}\.){3}\d{1,3})(?![\w-]|\.\d)", _is_public_v4), flags=re.ASCII),
        ),
        (
            re.compile(r"[23][0-9A-Fa-f]{3}:"),
            _rules(
                (r"(?<![\w:.])(?P<it>(?:[0-9A-Fa-f]{1,4}:{1,2}){2,7}(?:[0-9A-Fa-f]{1,4})?)(?![\w:]|\.\w)", _is_public_v6),
                flags=re.ASCII,
            ),
        ),
    ),
    "phones": (
        (
            re.compile(r"\d(?:[ ./()-]{0,3}\d){6}", re.ASCII),
            _rules(
                (r"(?<![\w+.])(?P<it>\+[1-9](?:[ ./-]?\(?\d\)?){7,14})(?!\w)", _is_international),
                (r"(?<![\w+./-])(?<!\d )(?P<it>00[1-9]\d{0,2}(?:[ ./-]\(?\d{1,8}\)?){2,6})(?![\w-]|\.\d)", _is_international),
                (  # North American
                    r"(?<![\w.+/-])(?P<it>(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[.-]\d{4})(?![\w-]|\.\d)",
                    _always,
                ),
                flags=re.ASCII,
            ),
        ),
        (
            re.compile(r"\d(?:[ ./()-]{0,2}\d){5}", re.ASCII),
            _rules(
                (rf"{_PHONE_NAME}{_PHONE_JOINTS}(?P<it>\(?\d(?:[ ./()-]{{0,2}}\d){{5,14}})(?![A-Za-z0-9_-]|\.\d)", _is_announced),
                flags=re.IGNORECASE,
            ),
        ),
    ),
}
