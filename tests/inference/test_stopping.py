"""A stop string ends the text where it begins, however the text arrives."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from limner.inference.stopping import StopStrings, Transcript
from tests.inference.fake import Letters
from tests.inference.naive import cut_at_stop

texts = st.text(alphabet="abc", max_size=12)
stop_strings = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), max_size=3)


def read(pieces, stops):
    finder, text = StopStrings(stops), ""
    for piece in pieces:
        text += finder.push(piece)
        if finder.found:
            return text, True
    return text + finder.finish(), False


@given(texts, stop_strings, st.lists(st.integers(0, 12)))
def test_the_text_ends_at_the_same_place_however_it_is_cut_into_pieces(text, stops, cuts):
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    expected = cut_at_stop(text, stops)
    assert read(pieces, stops) == (text if expected is None else expected, expected is not None)


@given(texts, stop_strings)
def test_text_is_held_back_only_while_it_may_begin_a_stop_string(text, stops):
    finder, released = StopStrings(stops), ""
    for end, character in enumerate(text, start=1):
        released += finder.push(character)
        if finder.found:
            break
        held = text[len(released) : end]
        assert text.startswith(released)
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_a_piece_is_released_as_soon_as_it_cannot_be_a_stop():
    finder = StopStrings(["</end>"])
    pieces = ["hello", " <", "/e", "m", "> </end", "> more"]
    assert [finder.push(piece) for piece in pieces] == ["hello", " ", "", "</em", "> ", ""]
    assert finder.found


def test_the_string_that_is_complete_first_wins():
    assert read(["xabcd"], ["abcd", "bc"]) == ("xa", True)
    assert read(["xabc"], ["abc", "bc"]) == ("x", True)


def test_without_a_decoder_there_is_no_text():
    transcript = Transcript(None, ())
    assert transcript.push(3) + transcript.finish() == ""


def test_what_the_decoder_still_has_comes_at_the_end():
    transcript = Transcript(Letters(), ("?b",))
    assert transcript.push(1) + transcript.push(0) == "a"
    assert transcript.finish() == "?"


def test_nothing_comes_after_a_stop_string():
    transcript = Transcript(Letters(), ("b",))
    assert transcript.push(4) == "a"
    assert transcript.stopped
    assert transcript.finish() == ""
