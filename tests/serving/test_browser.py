"""The page in a real browser, against a live server."""

import json
import re
import shutil
import time

import pytest

import limner
from limner.serving.build_page import BUILT, STAMP, is_current
from limner.serving.keys import KeyStore
from limner.serving.response_store import ResponseStore
from limner.serving.server import Loading, Server, Serving
from tests.serving.conftest import running

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
    pytest.mark.skipif(not (BUILT / STAMP).exists(), reason="the page was not built"),
]

#: Nothing but the page's own server is asked, and none of this needs a graphics card.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def live(tiny, tmp_path_factory):
    """A model that can write for long enough to be stopped."""
    folder = tmp_path_factory.mktemp("data")
    loading = Loading({"tiny": lambda: limner.load(tiny, context=8192)})
    stores = KeyStore(folder / "keys.sqlite"), ResponseStore(folder / "responses.sqlite")
    with running(Server(loading, Serving(port=0), *stores)) as server:
        yield server


@pytest.fixture
def open_page(chromium):
    """Open a server's page; the test fails if the browser complained of anything."""
    complaints = []
    context = chromium.new_context(viewport={"width": 1180, "height": 760})

    def at(server):
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else 0)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server.address)
        return page

    yield at
    context.close()
    # what the server refuses is in the console whatever the page makes of it
    assert [said for said in complaints if "Failed to load resource" not in said] == []


def ask(page, text):
    page.get_by_role("textbox", name="Your message").fill(text)
    page.keyboard.press("Enter")


def go_on_for_ever(route):
    body = json.loads(route.request.post_data) | {"ignore_eos": True}
    route.continue_(post_data=json.dumps(body))


def tokens_of(page):
    return page.get_by_role("list", name="Tokens of the answer").get_by_role("listitem")


def test_a_built_page_is_of_this_source():
    assert is_current(), "the page is old: run python -m limner.serving.build_page"


def test_tokens_show_their_probability_and_alternatives(open_page, live):
    page = open_page(live)
    page.get_by_role("radiogroup").get_by_text("Tokens").click()
    ask(page, "the model")
    page.get_by_role("button", name="Ask again").wait_for()
    tokens = tokens_of(page)
    assert tokens.count() >= 2
    tokens.first.hover()
    card = page.get_by_role("tooltip")
    assert re.search(r"\d %", card.inner_text())
    assert card.get_by_role("row").count() >= 9  # eight alternatives, and all others
    page.mouse.move(5, 5)
    assert card.count() == 0
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    described = tokens.nth(1).get_attribute("aria-describedby")
    assert described == card.get_attribute("id")
    label = tokens.nth(1).get_attribute("aria-label")
    assert label.rpartition(", ")[2] in card.inner_text()
    page.keyboard.press("Escape")
    assert card.count() == 0


def test_an_answer_is_seen_while_it_is_written_and_can_be_stopped(open_page, live):
    page = open_page(live)
    page.route("**/v1/chat/completions", go_on_for_ever)
    page.get_by_role("radiogroup").get_by_text("Tokens").click()
    ask(page, "the model")
    tokens = tokens_of(page)
    tokens.nth(3).wait_for(state="attached")
    seen = tokens.count()
    tokens.nth(seen + 3).wait_for(state="attached")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("stopped by you").wait_for()
    assert 0 < tokens.count() < 8000
    thread = live.registry.served["tiny"].thread
    deadline = time.monotonic() + 20
    while thread.running or thread.engine.busy:
        assert time.monotonic() < deadline, "the stopped answer is still computed"
        time.sleep(0.01)


def test_a_question_asked_before_the_models_are_known_waits_for_them(open_page, live):
    page = open_page(live)
    held = []

    def hold(route):
        held.append(route)

    page.route("**/v1/models", hold)
    page.reload()
    ask(page, "an early question")
    assert page.get_by_role("log").count() == 0
    assert page.get_by_role("textbox", name="Your message").input_value() == "an early question"
    held.pop().continue_()
    page.get_by_role("button", name="Ask again").wait_for()
    assert "an early question" in page.get_by_role("log").inner_text()
    assert page.get_by_role("textbox", name="Your message").input_value() == ""


def test_conversations_stay_in_the_browser(open_page, live):
    page = open_page(live)
    ask(page, "a first question")
    page.get_by_role("button", name="Ask again").wait_for()
    page.get_by_role("button", name="New conversation").click()
    assert page.get_by_role("log").count() == 0
    page.reload()
    page.get_by_role("button", name="a first question", exact=True).click()
    assert "a first question" in page.get_by_role("log").inner_text()
    page.get_by_role("button", name="Delete a first question").click()
    assert page.get_by_role("button", name="a first question").count() == 0


def test_settings_and_system_prompt_are_asked_with(open_page, live):
    page = open_page(live)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Longest answer").fill("3")
    page.get_by_label("Top p").fill("")
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "the model")
    body = json.loads(sent.value.post_data)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["model"], body["max_tokens"], body.get("top_p")) == ("tiny", 3, None)
    page.get_by_text("3 tokens").wait_for()


def test_what_is_too_long_says_both_numbers(open_page, live):
    page = open_page(live)
    ask(page, "many words " * 6000)
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "Too long" in alert.inner_text()
    assert "8192" in alert.inner_text()
    assert len(re.findall(r"\d{4,}", alert.inner_text())) >= 2


def test_a_busy_server_says_when_to_ask_again(open_page, live):
    page = open_page(live)
    refused = {"error": {"message": "256 answers wait", "type": "", "param": None, "code": None}}
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "7"}, json=refused),
    )
    ask(page, "the model")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "256 answers wait" in alert.inner_text()
    assert "7 seconds" in alert.inner_text()


def test_a_key_is_asked_for_and_used(open_page, start, tmp_path):
    store = KeyStore(tmp_path / "keys.sqlite")
    key = store.create("me")
    with start(store, require_keys=True) as server:
        page = open_page(server)
        page.get_by_role("textbox", name="API key").fill(key)
        page.get_by_role("button", name="Use", exact=True).click()
        page.get_by_text("Server ready").wait_for()
        ask(page, "the model")
        page.get_by_role("button", name="Ask again").wait_for()
        page.close()


def test_nothing_is_loaded_from_elsewhere(open_page, live):
    page = open_page(live)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.get_by_text("Server ready").wait_for()
    assert asked
    assert [url for url in asked if not url.startswith(live.address)] == []
