"""Addresses that lead elsewhere: what `zoo fetch` and networks from a hub may ask for, and what is told about it."""

import contextlib
import urllib.request

import pytest
from local_server import local_server

from easytransfer.errors import ModelError
from easytransfer.presets import download as module
from easytransfer.presets.download import check_address, download


@contextlib.contextmanager
def server(answer):
    """Calls `answer(handler)` for every request; yields the address and the list of paths asked for."""
    asked = []

    def get(handler):
        asked.append(handler.path)
        with contextlib.suppress(ConnectionError):
            answer(handler)

    with local_server(get) as address:
        yield address, asked


def redirect(to):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.end_headers()

    return answer


def send(body, **headers):
    def answer(handler):
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "must be http or https"),
        ("ftp://host/model.zip", "must be http or https"),
        ("gopher://host/1", "must be http or https"),
        ("jar:http://host!/x", "must be http or https"),
        ("//host/x", "must be http or https"),
        ("http:///x", "must be http or https"),
        ("http://host/a b", "must be http or https"),
        ("http://host/a\r\nX-Injected: yes", "must be http or https"),
        ("http://[", "not readable"),
        ("http://host:99999/", "not readable"),
        ("http://169.254.169.254/latest/meta-data/", "link-local"),
        ("http://[fe80::1]/", "link-local"),
        ("http://[::ffff:169.254.169.254]/", "link-local"),
        ("http://2852039166/", "link-local"),  # 169.254.169.254 as one number
        ("http://0xA9.0xFE.0xA9.0xFE/", "link-local"),
    ],
)
def test_addresses_that_are_refused(url, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        download(url, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(ModelError, match="user name or password") as error:
        check_address("https://me:hunter2@host/model.zip")
    assert "hunter2" not in str(error.value) and "host/model.zip" in str(error.value)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://169.254.169.254/latest/"])
def test_redirects_to_files_and_clouds(tmp_path, to):
    with server(redirect(to)) as (url, asked), pytest.raises(ModelError):
        download(f"{url}/model.zip", tmp_path)
    assert asked == ["/model.zip"] and list(tmp_path.iterdir()) == []


def test_redirects_without_end(tmp_path):
    with server(redirect("/again")) as (url, asked), pytest.raises(ModelError, match="redirect"):
        download(f"{url}/model.zip", tmp_path)
    assert len(asked) <= module._MOST_REDIRECTIONS + 1


@pytest.mark.parametrize(
    ("start", "to", "message"),
    [
        ("http://public.example/m", "http://10.0.0.1/", "into this network"),
        ("http://public.example/m", "http://localhost:6379/", "into this network"),
        ("http://public.example/m", "http://rebound.example/", "into this network"),
        ("https://public.example/m", "http://other.example/", "from https to http"),
    ],
)
def test_redirects_from_the_internet_into_the_own_network(monkeypatch, start, to, message):
    names = {"public.example": "93.184.216.34", "other.example": "93.184.216.35", "rebound.example": "192.168.0.1"}

    def resolve(host, port):
        return [(0, 0, 0, "", (names.get(host, {"localhost": "127.0.0.1"}.get(host, host)), 0))]

    monkeypatch.setattr(module.socket, "getaddrinfo", resolve)
    with pytest.raises(ModelError, match=message):
        module._Redirects().redirect_request(urllib.request.Request(start), None, 302, "", {}, to)
    follow = module._Redirects().redirect_request(
        urllib.request.Request("https://public.example/m"), None, 302, "", {}, "https://other.example/m"
    )
    assert follow.full_url == "https://other.example/m"


def test_a_server_that_never_stops_fills_no_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with server(send(b"x" * 5000)) as (url, _), pytest.raises(ModelError, match="more than any model"):
        download(f"{url}/model.zip", tmp_path)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("length", ["-5", "x", "1" * 5000], ids=["negative", "letters", "digits"])
def test_lengths_that_are_none(tmp_path, length):
    with server(send(b"x", Content_Length=length)) as (url, _), pytest.raises(ModelError, match="failed"):
        download(f"{url}/model.zip", tmp_path)


PATHS = ["/%2e%2e%2f%2e%2e%2fevil", "/..", "/", "/a%00b", "/" + "n" * 400, "/%0d%0aevil", "/ü?x"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path)[:20])
def test_the_name_of_the_file_stays_in_its_folder(tmp_path, path):
    with server(send(b"content", Content_Length="7")) as (url, _):
        try:
            found = download(url + path, tmp_path / "in")
        except ModelError as error:
            assert "failed" in str(error)  # no request can be made for it
            return
    assert found.parent == tmp_path / "in" and found.read_bytes() == b"content"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [found]


def test_a_damaged_note_of_an_interrupted_download_starts_anew(tmp_path):
    with server(send(b"content", Content_Length="7")) as (url, _):
        done = download(f"{url}/m", tmp_path)
        key = done.name.partition("-")[0]
        for note in ("", "[", "[]", '{"validator": 5}', "{}"):
            (tmp_path / f"{key}.part").write_bytes(b"old")
            (tmp_path / f"{key}.json").write_text(note)
            assert download(f"{url}/m", tmp_path).read_bytes() == b"content"


def test_signed_addresses_are_not_told(tmp_path):
    with server(send(b"x", Content_Length="1")) as (url, _), pytest.raises(ModelError) as error:
        download(f"{url}/m.zip?X-Amz-Signature=abcdef", tmp_path, sha256="0" * 64)
    assert "abcdef" not in str(error.value) and "m.zip" in str(error.value)
