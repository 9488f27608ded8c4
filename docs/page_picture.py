"""Take the picture of the web page: `.venv/bin/python docs/page_picture.py`.

It serves the real model, asks it something in Chromium, and points at a token of its answer.
"""

import shutil
import threading
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

import limner
from limner.serving.server import Loading, Server, Serving

MODEL = "smollm2-135m-instruct"
QUESTION = "Why is the sky blue? Answer in two or three sentences."
SETTINGS = '{"system": "", "sampling": {"temperature": 0.8, "top_p": 0.95, "seed": 11}}'
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
PICTURE = Path(__file__).parent / "images" / "page.png"


def ask(page: Page, address: str) -> None:
    """Let the model answer, and open the card of a token that it was not sure of."""
    page.add_init_script(f"localStorage.setItem('limner.settings', '{SETTINGS}')")
    page.add_init_script("localStorage.setItem('limner.view', 'tokens')")
    page.goto(address)
    page.get_by_text("Server ready").wait_for()
    page.get_by_role("textbox", name="Your message").fill(QUESTION)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Ask again").wait_for(timeout=300_000)
    tokens = page.get_by_role("list", name="Tokens of the answer")
    unsure = tokens.locator("[data-level='2'], [data-level='3'], [data-level='4']")
    unsure.nth(1).hover()
    page.get_by_role("tooltip").wait_for()


def main() -> None:
    server = Server(Loading({MODEL: lambda: limner.load(MODEL, context=2048)}), Serving(port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.registry.ready:
        time.sleep(0.1)
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1080, "height": 620}, device_scale_factor=1.5)
        ask(page, server.address)
        page.screenshot(path=PICTURE)
        browser.close()
    server.uvicorn.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
