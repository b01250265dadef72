"""Personal numbers that states issue, by their form and, if they have one, their check digit."""

import re
from collections.abc import Callable, Sequence
from datetime import date

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], bool]]
"""A pattern whose group `it` is the number, and a check of the match."""

_SEPARATORS = re.compile(r"[ .-]")
_MONTH_AND_DAY = r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_CHINESE_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_PESEL_WEIGHTS = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
_CODICE_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def luhn(digits: str) -> bool:
    """Whether the check digit of a card number is valid (ISO/IEC 7812-1)."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def chinese(number: str) -> bool:
    """Whether the date and the check character of a Chinese identity number are valid (GB 11643, ISO 7064 MOD 11-2)."""
    total = sum(weight * int(digit) for weight, digit in zip(_CHINESE_WEIGHTS, number[:17], strict=True))
    return "10X98765432"[total % 11] == number[17].upper() and _is_date(number[6:14])


def cpf(digits: str) -> bool:
    """Whether both check digits of a Brazilian CPF are valid; eleven equal digits are not issued."""
    sums = (sum((length + 1 - at) * int(digit) for at, digit in enumerate(digits[:length])) for length in (9, 10))
    return len(set(digits)) > 1 and all(total * 10 % 11 % 10 == int(digit) for total, digit in zip(sums, digits[9:], strict=True))


def dni(number: str) -> bool:
    """Whether the check letter of a Spanish DNI, or NIE (which begins with X, Y or Z), is valid."""
    digits = number[:-1].translate(str.maketrans("XYZ", "012"))
    return _DNI_LETTERS[int(digits) % 23] == number[-1]


def codice_fiscale(code: str) -> bool:
    """Whether the check letter of an Italian codice fiscale, in upper case, is valid."""
    values = [int(character) if character.isdigit() else ord(character) - ord("A") for character in code[:15]]
    return sum(value if at % 2 else _CODICE_ODD[value] for at, value in enumerate(values)) % 26 == ord(code[15]) - ord("A")


def nir(number: str) -> bool:
    """Whether the key of a French social security number, without spaces, is valid (2A and 2B: Corsica)."""
    digits = number[:13].upper().replace("2A", "19").replace("2B", "18")
    return digits.isdigit() and 97 - int(digits) % 97 == int(number[13:])


def verhoeff(digits: str) -> bool:
    """Whether the check digit of an Indian Aadhaar number is valid (Verhoeff, 1969)."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _dihedral(check, _permuted(int(digit), place % 8))
    return check == 0


def pesel(digits: str) -> bool:
    """Whether the check digit of a Polish PESEL is valid."""
    return sum(weight * int(digit) for weight, digit in zip(_PESEL_WEIGHTS, digits, strict=True)) % 10 == 0


def _dihedral(first: int, second: int) -> int:
    """The product in the dihedral group of order 10: 0 to 4 are rotations of a pentagon, 5 to 9 reflections."""
    if first < 5:
        return (first + second) % 5 + 5 * (second >= 5)
    return (first - second) % 5 + 5 * (second < 5)


def _permuted(digit: int, times: int) -> int:
    for _ in range(times):
        digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
    return digit


def _is_date(digits: str) -> bool:
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) is not None
    except ValueError:
        return False


def _always(match: re.Match[str]) -> bool:
    return True


def _checked(check: Callable[[str], bool]) -> Callable[[re.Match[str]], bool]:
    return lambda match: check(_SEPARATORS.sub("", match["it"]))


def _rule(pattern: str, check: Callable[[re.Match[str]], bool] = _always, *, flags: int = 0) -> Rule:
    """A number that is not part of a longer number or word."""
    return re.compile(rf"(?<![\w.+-])(?P<it>{pattern})(?![\w-]|\.\d)", re.ASCII | flags), check


def _announced(names: str, pattern: str, check: Callable[[re.Match[str]], bool] = _always) -> Rule:
    """A number whose form alone proves nothing, after its name."""
    joint = r"(?: (?:number|no\.?|is|card|#)){0,3}[ :#=]{1,3}"
    return re.compile(rf"\b(?:{names})\b{joint}(?P<it>{pattern})(?![\w-]|\.\d)", re.ASCII | re.IGNORECASE), check


_SSN = r"(?!000|666)[0-8]\d\d{0}(?!00)\d\d{0}(?!0000)\d{{4}}"

RULES: Sequence[Rule] = (
    _rule(rf"[1-9]\d{{5}}(?:18|19|20)\d\d{_MONTH_AND_DAY}\d{{3}}[\dXx]", _checked(chinese)),
    _rule(_SSN.format("-")),  # United States
    _rule(r"9\d\d-(?:5\d|6[0-5]|7\d|8[0-8]|9[0-24-9])-\d{4}"),  # its ITIN
    _rule(r"\d{3}\.\d{3}\.\d{3}-\d\d", _checked(cpf)),  # Brazil
    _rule(r"(?:\d{8}|[XYZ]-?\d{7})-?[A-HJ-NP-TV-Z]", _checked(dni)),  # Spain
    _rule(  # Italy
        r"[A-Z]{6}[\dL-NP-V]{2}[A-EHLMPR-T][\dL-NP-V]{2}[A-Z][\dL-NP-V]{3}[A-Z]",
        lambda match: codice_fiscale(match["it"].upper()),
        flags=re.IGNORECASE,
    ),
    _rule(
        r"[12](?P<gap> ?)\d\d(?P=gap)(?:0[1-9]|[1-9]\d)(?P=gap)(?:\d\d|2[AB])(?P=gap)\d{3}(?P=gap)\d{3} ?\d\d", _checked(nir)
    ),  # France
    _rule(r"(?<!\d[ -])[2-9]\d{3}(?P<gap>[ -])\d{4}(?P=gap)\d{4}(?!(?P=gap)\d)", _checked(verhoeff)),  # India
    _rule(  # United Kingdom
        r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?P<gap> ?)\d\d(?P=gap)\d\d(?P=gap)\d\d(?P=gap)[A-D]"
    ),
    _rule(rf"\d\d{_MONTH_AND_DAY}-[1-8]\d{{6}}"),  # South Korea
    _announced("ssn|social security", rf"{_SSN.format(' ')}|{_SSN.format('')}"),
    _announced("sin|social insurance", r"\d{3}(?P<gap>[ -]?)\d{3}(?P=gap)\d{3}", _checked(luhn)),  # Canada
    _announced("pesel", r"\d{11}", _checked(pesel)),  # Poland
)
