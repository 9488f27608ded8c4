"""The page as it is served and as it is built; how it works is in test_browser.py."""

import sys
from functools import partial

import pytest

from limner.serving import application, build_page, page
from limner.serving.keys import KeyStore
from tests.serving.conftest import ask


@pytest.fixture
def built(tmp_path):
    folder = tmp_path / "page"
    (folder / "assets").mkdir(parents=True)
    (folder / build_page.STAMP).write_text("made of something")
    (folder / "index.html").write_text("<!doctype html>the page")
    (folder / "assets" / "index-1a2b.js").write_text("run()")
    (folder / "assets" / "index-3c4d.css").write_text("p {}")
    return folder


@pytest.fixture
def serving(start, monkeypatch):
    """Start a server with the page that is in a folder."""

    def make(folder, *given, **settings):
        monkeypatch.setattr(application, "add_page", partial(page.add_page, built=folder))
        return start(*given, **settings)

    return make


def test_the_server_has_a_page(send):
    reply = send("GET", "/")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert b'id="root"' in reply.body or build_page.COMMAND.encode() in reply.body
    assert "/" not in send("GET", "/openapi.json").json["paths"]


def test_without_a_build_the_page_says_how_to_make_one(serving, tmp_path):
    with serving(tmp_path) as server:
        reply = ask(server, "GET", "/")
        assert reply.status == 200
        assert build_page.COMMAND in reply.body.decode()
        assert reply.headers["cache-control"] == "no-store"
        assert ask(server, "GET", "/assets/index.js").status == 404


def test_files_come_with_their_types_and_may_run_nothing_foreign(serving, built):
    with serving(built) as server:
        kinds = {
            path: ask(server, "GET", path).headers["content-type"].partition(";")[0]
            for path in ("/", "/assets/index-1a2b.js", "/assets/index-3c4d.css")
        }
        headers = ask(server, "GET", "/").headers
    assert list(kinds.values()) == ["text/html", "text/javascript", "text/css"]
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy["script-src"], policy["style-src"], policy["connect-src"]} == {"'self'"}
    assert headers["x-content-type-options"] == "nosniff"


def test_what_the_browser_has_is_not_sent_again(serving, built):
    with serving(built) as server:
        first = ask(server, "GET", "/")
        assert first.headers["cache-control"] == "no-cache"
        again = ask(server, "GET", "/", If_None_Match=f'"other", W/{first.headers["etag"]}')
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert ask(server, "GET", "/", If_None_Match='"other"').body == first.body
        named_by_content = ask(server, "HEAD", "/assets/index-1a2b.js")
        assert "immutable" in named_by_content.headers["cache-control"]
        assert (named_by_content.status, named_by_content.body) == (200, b"")


@pytest.mark.parametrize("name", ["other.js", "..%2findex.html", "%2e%2e/build.stamp", ""])
def test_only_the_files_of_the_page_are_served(serving, built, name):
    with serving(built) as server:
        assert ask(server, "GET", f"/assets/{name}").status == 404


def test_the_page_needs_no_key_but_what_it_asks_does(serving, built, tmp_path):
    store = KeyStore(tmp_path / "keys.sqlite")
    store.create("me")
    with serving(built, store, require_keys=True) as server:
        assert ask(server, "GET", "/").status == 200
        assert ask(server, "GET", "/assets/index-1a2b.js").status == 200
        assert ask(server, "GET", "/v1/models").status == 401
        assert ask(server, "GET", "/", Host="evil.example").status == 421


# Building, with Python in the place of Node.js

NPM = """
import json, pathlib, sys
assert sys.argv[1:3] == ["ci", "--omit=dev"], sys.argv
vite = pathlib.Path("node_modules/vite/bin/vite.js")
vite.parent.mkdir(parents=True)
vite.write_text(pathlib.Path("vite.py").read_text())
locked = pathlib.Path("package-lock.json").read_text()
pathlib.Path("node_modules/.package-lock.json").write_text(locked)
"""
VITE = """
import pathlib, sys
made = pathlib.Path(sys.argv[sys.argv.index("--outDir") + 1])
made.mkdir()
text = pathlib.Path("page.ts").read_text()
if text == "wrong":
    sys.exit("page.ts is wrong")
(made / "index.html").write_text(text)
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "package-lock.json").write_text(
        '{"packages": {"": {}, "node_modules/vite": {"version": "8.0.0"}}}'
    )
    (folder / "vite.py").write_text(VITE)
    (folder / "page.ts").write_text("one")
    (tmp_path / "npm.py").write_text(NPM)
    node = build_page.Node(sys.executable, (sys.executable, str(tmp_path / "npm.py")))
    monkeypatch.setattr(build_page, "find_node", lambda: node)
    monkeypatch.setattr(build_page, "NODE_PACKAGE", "no such package")
    return folder


def test_the_page_is_built_when_its_source_changed(source, tmp_path):
    built = tmp_path / "page"
    assert not build_page.is_current(source, built)
    build_page.build(source, built)
    assert (built / "index.html").read_text() == "one"
    assert build_page.is_current(source, built)
    (source / "page.ts").write_text("two")
    assert not build_page.is_current(source, built)
    build_page.build(source, built)
    assert (built / "index.html").read_text() == "two"
    assert {path.name for path in tmp_path.iterdir()} == {"lab", "npm.py", "page"}


def test_what_is_installed_already_is_not_installed_again(source, tmp_path):
    build_page.build(source, tmp_path / "page")
    assert build_page.is_installed(source)
    (tmp_path / "npm.py").write_text("raise SystemExit('asked to install')")
    (source / "page.ts").write_text("two")
    build_page.build(source, tmp_path / "page")
    lock = source / "package-lock.json"
    lock.write_text(lock.read_text().replace("8.0.0", "8.0.1"))
    assert not build_page.is_installed(source)


def test_a_build_that_fails_leaves_the_page_as_it_was(source, tmp_path):
    build_page.build(source, tmp_path / "page")
    (source / "page.ts").write_text("wrong")
    with pytest.raises(
        RuntimeError, match=r"^it needs Node\.js 20\.19, 22\.12 or newer, with npm$"
    ):
        build_page.build(source, tmp_path / "page")
    assert (tmp_path / "page" / "index.html").read_text() == "one"


def test_a_page_that_came_without_its_source_is_current(built, tmp_path):
    assert build_page.is_current(tmp_path / "nothing", built)


def test_without_a_page_the_command_says_so_in_one_line(monkeypatch, capsys):
    def build():
        raise RuntimeError("it needs Node.js")

    monkeypatch.setattr(build_page, "is_current", lambda: False)
    monkeypatch.setattr(build_page, "build", build)
    assert build_page.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("the web page was not built: it needs Node.js")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("version", "new"),
    [("v20.19.0", True), ("v18.20.1", False), ("v22.1.0", False), ("v24.0.0", True), ("", False)],
)
def test_only_a_new_enough_node_is_used(tmp_path, monkeypatch, version, new):
    for name in ("node", "npm"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert (build_page.find_node() is not None) == new
