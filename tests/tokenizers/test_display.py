import re

from hypothesis import given, settings

from tests.tokenizers.samples import TEXTS, byte_level, wordpiece


@given(text=TEXTS)
@settings(deadline=None, max_examples=100)
def test_pieces_stand_where_their_text_does(text):
    tokenizer = byte_level()
    tokenization = tokenizer.tokenization(text)
    assert tokenization.ids == tokenizer.encode(text)
    assert b"".join(piece.bytes for piece in tokenization.pieces) == text.encode()
    for piece in tokenization.pieces:
        assert piece.source == text[piece.start : piece.end]
        assert piece.bytes in piece.source.encode()


def test_part_of_a_character_is_shown_in_hexadecimal():
    pieces = byte_level().pieces("🦜")
    assert "".join(piece.shown for piece in pieces) == r"\xf0\x9f\xa6\x9c"


def test_special_tokens_are_shown_when_asked_for():
    tokenizer = wordpiece()
    pieces = tokenizer.pieces("the", add_special_tokens=True)
    assert [piece.text for piece in pieces] == ["[CLS]", "the", "[SEP]"]
    assert [piece.source for piece in pieces] == ["", "the", ""]


def test_a_notebook_shows_every_token_with_its_id_and_no_markup_of_the_text():
    tokenizer = byte_level()
    tokenization = tokenizer.tokenization("<script>alert('&')</script> \n")
    shown = tokenization._repr_html_()
    assert "<script" not in shown
    assert shown.count('role="listitem"') == len(tokenization)
    assert re.findall(r">(\d+)</small>", shown) == [str(token_id) for token_id in tokenization.ids]


def test_colours_can_be_read():
    shown = byte_level().tokenization("one two three four five six")._repr_html_()
    for colour in set(re.findall(r"background:#(\w{6})", shown)):
        assert contrast_with_black(colour) > 12


def contrast_with_black(colour):
    """The contrast ratio of the Web Content Accessibility Guidelines 2.1."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return (luminance + 0.05) / 0.05
