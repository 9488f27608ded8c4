import pytest

from limner.data.cleaning import REPAIRS, find_boilerplate, remove_boilerplate


@pytest.mark.parametrize(
    ("name", "text", "repaired"),
    [
        ("encoding", "cafÃ© and â€œquotesâ€\x9d", "café and “quotes”"),
        ("encoding", "naïve Ångström, 日本語\nÃ© alone", "naïve Ångström, 日本語\né alone"),
        ("unicode", "e\u0301t\u00e9", "\u00e9t\u00e9"),
        ("control", "\ufeffa\r\nb\rc\x00\x08\td \x1b[31mred\x1b[0m", "a\nb\nc\td red"),
        ("html", "<p class='x'>one<br/>two</p>", "\none\ntwo\n"),
        ("html", "a <b>bold</b> <a href=http://x.org/?a=1>link</a>", "a bold link"),
        ("html", "5 &lt; 6 &amp; 7&nbsp;&#8212; &eacute;", "5 < 6 & 7 \u2014 é"),
        ("html", "x<!-- <p> --><script>if (a < b) { f('<p>') }</script>y", "xy"),
        ("html", "&lt;b&gt; is how bold is written", "<b> is how bold is written"),
        (
            "web_lines",
            "Home | About\nThis line is a whole sentence.\nToo short.",
            "This line is a whole sentence.",
        ),
        ("web_lines", "We use cookies to make this better.\nThis goes on and on ...", ""),
    ],
)
def test_a_repair_takes_out_what_no_writer_meant(name, text, repaired):
    assert REPAIRS[name](text) == repaired


@pytest.mark.parametrize(
    "text",
    [
        "if a <b and c> d: return List<String>, x<y, a<-b",
        "text about <font> and <input type='text'>, or the <head> of a page, 10\xa0km",
        "http://x.org/?a=1&copy=2&lt=3 AT&T; R&D",
        "tabs\tand\nlines, 100 % of 1 < 2 > 0",
        "",
    ],
)
@pytest.mark.parametrize("name", ["encoding", "unicode", "control", "html"])
def test_what_is_whole_is_left_alone(name, text):
    assert REPAIRS[name](text) == text


@pytest.mark.parametrize("name", list(REPAIRS))
def test_a_repaired_text_needs_no_repair(name):
    text = "<div>cafÃ© e\u0301 &amp; so on, it goes on.</div>\r\nThe end &nbsp; is <i>near</i> now."
    once = REPAIRS[name](text)
    assert REPAIRS[name](once) == once


def test_lines_that_stand_on_every_page_are_taken_out_at_its_ends_only():
    inner = [f"sentence {number} of this page" for number in range(40)]
    pages = [
        "\n".join(["Home  About  Shop", "", *inner[n:], "All rights reserved", "----"])
        for n in range(8)
    ]
    boilerplate = find_boilerplate(pages, 0.5)
    assert {"Home  About  Shop", "All rights reserved"} <= boilerplate
    assert "----" not in boilerplate
    middle = "\n".join([*inner[:15], "All rights reserved", *inner[15:]])
    assert remove_boilerplate(middle, boilerplate - set(inner)) == middle
    cleaned = remove_boilerplate(pages[3], frozenset({"Home  About  Shop", "All rights reserved"}))
    assert cleaned == "\n".join(["", *inner[3:], "----"])


def test_few_pages_have_no_boilerplate():
    assert find_boilerplate(["same line\n", "same line\n"], 0.1) == frozenset()
