"""Personal data in a text, by its form: what must not leak from a model.

``email``        an address with a dotted domain
``phone``        ``+`` and 8 to 15 digits; or 9 to 15 digits that begin with 0 or a parenthesis; or
                 the North American 3-3-4; with spaces, dots, dashes or parentheses, no date
``credit_card``  13 to 19 digits, perhaps in groups, whose last one is the check digit of the others
                 (Luhn, ISO/IEC 7812); beside other numbers in groups of 4-4-4-4 or 4-6-5, or in one
``iban``         a country of the registry, as many letters or digits as it prescribes, and 1 as the
                 remainder by 97 (ISO 13616)
``ip_address``   of version 4 or 6, complete

Forms only: a name, a street or a number that somebody spells out in words is not found, and an
example such as ``name@example.com`` is. Width is folded first (NFKC), so full-width digits count,
and so are dashes.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from itertools import chain

_EMAIL = re.compile(r"[A-Za-z0-9_.+%-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,63}")
_DASHES = re.compile("[\u2010-\u2015\u2212]")
_DIGIT_GROUPS = re.compile(r"(?<!\w)(?<![0-9]\.)[+(]{0,2}[0-9](?:[ ().-]{0,2}[0-9]){7,18}(?![\w])")
_DATE = re.compile(r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{1,2}[.-][0-9]{1,2}[.-][0-9]{4})(?![0-9])")
_NORTH_AMERICAN = re.compile(r"(?<![0-9.])[0-9]{3}[ .-][0-9]{3}[ .-][0-9]{4}(?![0-9])")
_CARD = re.compile(r"(?<!\w)(?<![0-9]\.)[0-9](?:[ -]?[0-9]){12,18}(?!\w)")
# In a lookahead, so that one begins where another that is none has not ended yet.
_CARD_IN_NUMBERS = re.compile(
    r"(?<!\w)(?<![0-9]\.)"
    r"(?=((?:[0-9]{4}[ -]){3}[0-9]{4}|[0-9]{4}[ -][0-9]{6}[ -][0-9]{5}|[0-9]{13,19})(?!\w))"
)
_IBAN = re.compile(r"(?<!\w)(?=([A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30})(?!\w))", re.IGNORECASE)
#: Length by country, from the IBAN registry.
_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})([0-9]{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 "
        "DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 "
        "IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 "
        "MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 "
        "SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}
_ADDRESS = re.compile(r"(?:(?<![\w.:])|(?<=[A-Za-z]:))[0-9A-Fa-f:.]{3,45}(?![\w:])")
_ADDRESS_4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w|\.[0-9])")


def find_personal_data(text: str, kinds: Collection[str]) -> tuple[str, ...]:
    """The ``kinds`` of personal data that occur in ``text``."""
    plain = _DASHES.sub("-", unicodedata.normalize("NFKC", text))
    return tuple(kind for kind in kinds if any(_FINDERS[kind](plain)))


def _emails(text: str) -> Iterator[bool]:
    return (True for _ in _EMAIL.finditer(text))


def _phones(text: str) -> Iterator[bool]:
    return (_is_phone(match[0]) for match in _DIGIT_GROUPS.finditer(text))


def _is_phone(text: str) -> bool:
    if date := _DATE.match(text):
        text = text[date.end() :].lstrip(" .-)")
    digits = sum(c.isdigit() for c in text)
    if digits < 8 or re.fullmatch(r"[0-9]+\.[0-9]+", text):
        return False
    if "+" in text[:2]:
        return 8 <= digits <= 15
    if text[0] in "(0" and 9 <= digits <= 15:
        return True
    return _NORTH_AMERICAN.search(text) is not None


def _cards(text: str) -> Iterator[bool]:
    whole = (match[0] for match in _CARD.finditer(text))
    parts = (match[1] for match in _CARD_IN_NUMBERS.finditer(text))
    return (_luhn(re.sub(r"[ -]", "", number)) for number in chain(whole, parts))


def _luhn(digits: str) -> bool:
    doubled = [2 * int(d) if place % 2 else int(d) for place, d in enumerate(reversed(digits))]
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0 and int(digits) > 0


def _ibans(text: str) -> Iterator[bool]:
    return (_is_iban(match[1]) for match in _IBAN.finditer(text))


def _is_iban(text: str) -> bool:
    """Whether it begins with one; the run of groups may go on with words."""
    packed = re.sub(r"[ -]", "", text).upper()
    length = _IBAN_LENGTHS.get(packed[:2])
    return length is not None and len(packed) >= length and _mod_97(packed[:length]) == 1


def _mod_97(iban: str) -> int:
    moved = iban[4:] + iban[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97


def _addresses(text: str) -> Iterator[bool]:
    matches = chain(_ADDRESS.finditer(text), _ADDRESS_4.finditer(text))
    return (_is_address(match[0].rstrip(".")) for match in matches)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text.count(".") == 3 or text.count(":") >= 2


_FINDERS: dict[str, Callable[[str], Iterator[bool]]] = {
    "email": _emails,
    "phone": _phones,
    "credit_card": _cards,
    "iban": _ibans,
    "ip_address": _addresses,
}
