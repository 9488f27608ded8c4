import pytest

from limner.data.personal import KINDS, find_personal, redact

PERSONAL = {
    "email": [
        "write to jane.doe+news@mail.company.co.uk.",
        "<bob_99@web.de>, thanks",
        "mailto:Info@Limner-Project.io",
    ],
    "phone": ["call +44 20 7946 0018 now", "Tel. +49 (0)30 901820", "+1-212-736-5000"],
    "iban": ["to DE89 3704 0044 0532 0130 00 please", "IBAN GB82WEST12345698765432"],
    "card": ["card 4111 1111 1111 1111, 12/28", "5500-0055-5555-5559", "378282246310005"],
    "ip": [
        "from 85.214.132.117 at",
        "host 93.184.216.34:8080",
        "ping 2606:2800:220:1:248:1893:25c8:1946",
    ],
    "key": [
        "key = 'AKIA" + "IOSFODNN7EXAMPLE'",
        "ghp_" + "a1B2" * 9,
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF123-_456",
    ],
}

LOOK_ALIKES = [
    "version 1.2.3.4 and v8.8.4.4, pip install x==4.8.1.2, release 9.1.2.3",
    "check_hpasm (4.8.0.2), e.g. 2.3.1.4, the network 203.97.2.0/24",
    "sections 8.2.4.44 and 8.2.4.45, Wed 12.34.56.78+0800, Decimal('+35236450.6')",
    "1.3.6.1.4.1.311 is an OID and 2024.11.22.1 is none",
    "on 2024-11-22 at 12:30:45, or 22/11/2024, or 20241122123045",
    "127.0.0.1, 192.168.1.10, 10.0.0.1, 203.0.113.7 and ::1 are nobody's",
    "std::vector, a::b::c, 00:1A:2B:3C:4D:5E, x[2:3:4], 1:2:3:4",
    "user@example.com, someone@host.invalid, root@localhost, me@test",
    "@property, w @ x.shape, c = a@b.sum(axis=0), git@github:repo, $@",
    "isbn 978-3-16-148410-0, ean 4006381333931, pi 3.1415926535897932",
    "4111 1111 1111 1112 fails its checksum, 1234 5678 9012 3452 is no issuer's",
    "DE89 3704 0044 0532 0130 01 is mistyped, AB12 CDEF GHIJ KLMN is no account",
    "0000000000000000 0xdeadbeefdeadbeefdeadbeef 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "the range 100-200, +5 degrees, +12345, 1 + 1 = 2, +1-1, 555-0100",
    "sk-learn, ghp_short, AKIA is a prefix, eyJ alone, sha1 da39a3ee5e6b4b0d3255bfef95601890",
    "0.7549 1.2241, row 4000 1000 2000 3000 4000 1000",
]


@pytest.mark.parametrize(("kind", "text"), [(k, text) for k in PERSONAL for text in PERSONAL[k]])
def test_personal_data_is_found_and_nothing_else_in_the_text(kind, text):
    found = find_personal(text)
    assert [finding.kind for finding in found] == [kind]
    placeholder = f"<{kind.upper()}>"
    cleaned = redact(text, found)
    assert placeholder in cleaned
    assert find_personal(cleaned) == []


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_only_looks_alike_is_left_alone(text):
    assert [text[one.start : one.end] for one in find_personal(text)] == []


def test_all_kinds_are_tested():
    assert set(PERSONAL) == set(KINDS)


def test_a_countrys_own_numbers_are_found_where_it_is_named():
    text = "call (212) 736-5000 or 030 901820"
    assert find_personal(text) == []
    assert redact(text, find_personal(text, regions=["US"])) == "call <PHONE> or 030 901820"
    assert redact(text, find_personal(text, regions=["US", "DE"])) == "call <PHONE> or <PHONE>"


def test_only_the_kinds_asked_for():
    text = "jane@company.com from 85.214.132.117"
    assert redact(text, find_personal(text, ["ip"])) == "jane@company.com from <IP>"


def test_several_findings_are_redacted_in_their_places():
    text = "85.214.132.117, a@b.org; 93.184.216.34"
    assert redact(text, find_personal(text)) == "<IP>, <EMAIL>; <IP>"
