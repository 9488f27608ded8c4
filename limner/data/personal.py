"""Personal data in a text: addresses, numbers of phones, accounts and cards, and keys.

Each kind is found by how it is written and then by what makes it valid (its checksum, its country's
rules), so that dates, versions and other numbers are left alone. What is reserved for examples
(example.org, 192.0.2.1, 127.0.0.1) is nobody's and does not count.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from limner.config import Settings
from limner.data.extra import import_extra

Kind = Literal["key", "email", "iban", "card", "phone", "ip"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Personal(Settings):
    """What is done with personal data."""

    action: Literal["keep", "report", "redact", "refuse"] = "keep"
    """keep: do not look; report: count; redact: put placeholders such as <EMAIL> in its place;
    refuse: leave out the document"""
    kinds: tuple[Kind, ...] = KINDS
    """what is looked for"""
    phone_regions: tuple[str, ...] = ()
    """countries (such as US, DE) whose numbers are known without their +code"""


@dataclass(frozen=True)
class Finding:
    """Something personal at `start` to `end` of a text."""

    kind: Kind
    start: int
    end: int


Spans = Iterator[tuple[int, int]]

EMAIL = re.compile(
    r"(?<![\w.+%/@-])[a-z0-9](?:[\w.+%-]{0,62}[\w+%-])?"
    r"@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}(?![\w(@-]|\.\w)",
    re.IGNORECASE,
)
#: RFC 2606 and 6761.
RESERVED = re.compile(
    r"(?:^|[.@])(?:example\.(?:com|net|org|edu)|(?:[\w-]+\.)*(?:example|invalid|test|localhost|local))$",
    re.IGNORECASE,
)

IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
)

#: Groups as they are printed, or none: spaces elsewhere are tables of numbers.
CARD = re.compile(
    r"(?<![\w.,+-])(?<!\d{4} )"
    r"(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -]?)\d{6}\2\d{4,5})"
    r"(?![\w-]|[.,]\d| \d{4}\b)"
)
#: How the numbers of the issuers begin (ISO/IEC 7812), with their lengths.
ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|65\d{2}|64[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
)

INTERNATIONAL = re.compile(r"[+＋]\s*\(?\d")
#: With a sign and a fraction: no phone.
FRACTION = re.compile(r"\+\d+[.,]\d{1,2}")
VERSION = re.compile(
    r"(?:\bv|versions?|release|[=<>~^]=?|\bver\.?|§|sections?)[ \t]*[\"']?$", re.IGNORECASE
)
IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w+-]|\.\w|/\d)")
#: Of versions and sections at most one number is as high; so are but two in a thousand addresses.
LEAST = 20
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{0,4}(?![\w:]|\.\w)", re.IGNORECASE)

KEYS = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:(?!-----BEGIN).)+?"
    r"-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"|(?<![\w-])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{82}"
    r"|glpat-[\w-]{20}"
    r"|xox[abeoprs]-[0-9A-Za-z-]{10,}"  # Slack
    r"|AIza[\w-]{35}"  # Google
    r"|sk-(?:proj-|ant-|svcacct-)?[\w-]{32,}"  # OpenAI, Anthropic
    r"|[rs]k_live_[0-9A-Za-z]{24,}"  # Stripe
    r"|hf_[A-Za-z]{34}"
    r"|npm_[A-Za-z0-9]{36}|pypi-AgEIcHlwaS5vcmc[\w-]{50,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"  # JSON web tokens
    r")(?![\w-])",
    re.DOTALL,
)


def emails(text: str) -> Spans:
    """Addresses of electronic mail."""
    if "@" not in text:
        return
    for match in EMAIL.finditer(text):
        if not RESERVED.search(match[0]) and ".." not in match[0]:
            yield match.span()


def ibans(text: str) -> Spans:
    """Bank accounts whose checksum and length are right (ISO 13616)."""
    check = import_extra("stdnum.iban", "data", "finding bank accounts")
    for match in IBAN.finditer(text):
        if check.is_valid(match[0]):
            yield match.span()


def cards(text: str) -> Spans:
    """Payment cards: an issuer's beginning, its length, and Luhn's checksum."""
    check = import_extra("stdnum.luhn", "data", "finding card numbers")
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if ISSUERS.fullmatch(digits) and check.is_valid(digits) and len(set(digits)) > 1:
            yield match.span()


def phones(text: str, regions: Sequence[str] = ()) -> Spans:
    """Phone numbers that their country could have given out (libphonenumber)."""
    library = import_extra("phonenumbers", "data", "finding phone numbers")
    leniency = library.Leniency.VALID
    if regions or INTERNATIONAL.search(text):
        for region in regions or (None,):
            for match in library.PhoneNumberMatcher(text, region, leniency=leniency):
                if not FRACTION.fullmatch(match.raw_string):
                    yield match.start, match.end


def ips(text: str) -> Spans:
    """Addresses of machines on the open internet, of versions 4 and 6; not of networks."""
    for match in IPV4.finditer(text):
        before = text[max(match.start() - 12, 0) : match.start()]
        high = sum(int(number) >= LEAST for number in match[0].split("."))
        if high > 1 and _is_public(match[0]) and not VERSION.search(before):
            yield match.span()
    for match in IPV6.finditer(text) if text.count(":") > 2 else ():
        if _is_public(match[0]):
            yield match.span()


def _is_public(written: str) -> bool:
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return False
    # Of version 6 only 2000::/3 is given out; the rest is a::b of some programming language.
    given_out = address.version == 4 or int(address) >> 125 == 1
    return given_out and address.is_global and not address.is_multicast


def keys(text: str) -> Spans:
    """Private keys and the tokens of well-known services, which begin in ways of their own."""
    return (match.span() for match in KEYS.finditer(text))


FINDERS: dict[Kind, Callable[[str], Spans]] = {
    "key": keys,
    "email": emails,
    "iban": ibans,
    "card": cards,
    "ip": ips,
}


def find_personal(
    text: str, kinds: Sequence[Kind] = KINDS, regions: Sequence[str] = ()
) -> list[Finding]:
    """What is personal in a text, in order; of what overlaps, the kind that comes first in KINDS.

    Raises ValueError if a library that a kind needs is not installed.
    """
    found: list[Finding] = []
    for kind in (kind for kind in KINDS if kind in kinds):
        spans = phones(text, regions) if kind == "phone" else FINDERS[kind](text)
        new = [Finding(kind, start, end) for start, end in spans]
        found += [one for one in new if not any(_overlap(one, other) for other in found)]
    return sorted(found, key=lambda finding: finding.start)


def _overlap(one: Finding, other: Finding) -> bool:
    return one.start < other.end and other.start < one.end


def redact(text: str, findings: Sequence[Finding]) -> str:
    """The text with `<EMAIL>` and such in the place of what was found."""
    parts, position = [], 0
    for finding in findings:
        parts += [text[position : finding.start], f"<{finding.kind.upper()}>"]
        position = finding.end
    return "".join([*parts, text[position:]])
