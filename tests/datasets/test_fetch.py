"""Downloads: resumed, checked, whole or not at all; the server is on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import io
import json
import os
import re
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fedbench_datasets import fetching, locking
from fedbench_datasets.fetching import Download
from filelock import FileLock

from fedbench import ConfigError

CONTENT = bytes(range(256)) * 5000  # 1.28 MB: several blocks


@dataclasses.dataclass
class Site:
    """The server's files, how it misbehaves, and the requests that it got."""

    files: dict[str, bytes]
    url: str = ""
    cut_after: int | None = None
    """Bytes after which the connection is closed, as many times as ``cuts`` says."""
    cuts: int = 0
    ranges: bool = True
    etag: str | None = '"v1"'
    length: bool = True
    status: dict[str, int] = dataclasses.field(default_factory=dict)
    asked: list[tuple[str, str | None]] = dataclasses.field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    site: ClassVar[Site]
    protocol_version = "HTTP/1.0"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site, name, wanted = self.site, self.path.lstrip("/"), self.headers.get("Range")
        site.asked.append((name, wanted))
        if name in site.status:
            self.send_error(site.status[name])
            return
        if name not in site.files:
            self.send_error(404)
            return
        data, start = site.files[name], 0
        validator = self.headers.get("If-Range")
        if wanted and site.ranges and (validator is None or validator == site.etag):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1))  # type: ignore[union-attr]
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if site.length:
            self.send_header("Content-Length", str(len(data) - start))
        if site.etag:
            self.send_header("ETag", site.etag)
        self.end_headers()
        body = data[start:]
        if site.cuts:
            site.cuts -= 1
            body = body[: site.cut_after]
        with contextlib.suppress(ConnectionError):  # the client may have given up
            self.wfile.write(body)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    found = Site({"data.bin": CONTENT})
    handler = type("ThisHandler", (Handler,), {"site": found})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    found.url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


Seen = list[tuple[str, int, int | None]]


def md5(data: bytes) -> str:
    return "md5:" + hashlib.md5(data).hexdigest()


def get(site: Site, folder: Path, seen: Seen | None = None, **change: Any) -> None:
    given = {"urls": (site.url + "data.bin",), "path": "data.bin", "checksum": md5(CONTENT)}
    item = Download(**{**given, **change})
    report = (lambda *step: seen.append(step)) if seen is not None else (lambda *_: None)
    fetching.fetch([item], folder, report)


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != ".fetch.lock")


def test_a_file_arrives_checked_with_progress(site: Site, tmp_path: Path) -> None:
    seen: Seen = []
    get(site, tmp_path / "new/folder", seen)
    assert (tmp_path / "new/folder/data.bin").read_bytes() == CONTENT
    assert left(tmp_path / "new/folder") == ["data.bin"]
    size = len(CONTENT)
    arrived = [(done, total) for what, done, total in seen if what == "data.bin"]
    assert arrived[0] == (0, size)
    assert arrived[-1] == (size, size)
    assert arrived == sorted(arrived)
    assert len(arrived) > 3
    assert ("checking data.bin", size, size) in seen


def test_a_file_that_is_there_is_checked_and_not_asked_for(site: Site, tmp_path: Path) -> None:
    get(site, tmp_path)
    get(site, tmp_path)
    assert site.asked == [("data.bin", None)]
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1] + b"?")
    get(site, tmp_path)
    assert len(site.asked) == 2
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_broken_connection_is_taken_up_again(site: Site, tmp_path: Path) -> None:
    site.cuts, site.cut_after = 2, 300_000
    get(site, tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert [wanted for _, wanted in site.asked] == [None, "bytes=300000-", "bytes=600000-"]


def test_a_later_call_goes_on_from_what_is_there(site: Site, tmp_path: Path) -> None:
    site.cuts, site.cut_after = fetching.TRIES, 200_000
    with pytest.raises(ConfigError) as raised:
        get(site, tmp_path)
    done = fetching.TRIES * 200_000
    text = str(raised.value)
    assert f"{site.url}data.bin: the connection ended after {done} of {len(CONTENT)} bytes" in text
    assert "what has arrived is kept, and the same command resumes from there" in text
    assert left(tmp_path) == ["data.bin.part", "data.bin.part.json"]
    get(site, tmp_path)
    assert site.asked[-1] == ("data.bin", f"bytes={done}-")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert left(tmp_path) == ["data.bin"]


def interrupt(site: Site, folder: Path, **change: Any) -> None:
    site.cuts, site.cut_after = fetching.TRIES, 200_000
    with pytest.raises(ConfigError):
        get(site, folder, **change)
    site.cuts = 0
    site.asked.clear()


def test_a_file_that_changed_on_the_server_begins_anew(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path, checksum="")
    site.files["data.bin"], site.etag = CONTENT[::-1], '"v2"'
    get(site, tmp_path, checksum="")
    assert len(site.asked) == 1  # If-Range made the server send all of it
    assert (tmp_path / "data.bin").read_bytes() == CONTENT[::-1]


def test_without_a_validator_only_a_checksum_allows_to_go_on(site: Site, tmp_path: Path) -> None:
    site.etag = None
    interrupt(site, tmp_path / "a", checksum="")
    get(site, tmp_path / "a", checksum="")
    assert site.asked == [("data.bin", None)]
    interrupt(site, tmp_path / "b")
    get(site, tmp_path / "b")
    assert site.asked[0][1] is not None
    for name in "ab":
        assert (tmp_path / name / "data.bin").read_bytes() == CONTENT


def test_a_beginning_of_another_file_is_thrown_away(site: Site, tmp_path: Path) -> None:
    site.etag = None
    interrupt(site, tmp_path)
    part = tmp_path / "data.bin.part"
    part.write_bytes(b"\0" * part.stat().st_size)
    get(site, tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert [wanted is None for _, wanted in site.asked] == [False, True]


@pytest.mark.parametrize("checksum", ["", md5(CONTENT)])
def test_a_part_that_is_already_whole_is_used(site: Site, tmp_path: Path, checksum: str) -> None:
    interrupt(site, tmp_path, checksum=checksum)
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    get(site, tmp_path, checksum=checksum)  # the server answers 416
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_and_lengths_still_serves(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path)
    site.ranges = site.length = False
    seen: Seen = []
    get(site, tmp_path, seen)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert ("data.bin", 0, None) in seen


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_wrong_checksum_is_one_line_and_leaves_nothing(
    site: Site, tmp_path: Path, kind: str
) -> None:
    right = f"{kind}:{hashlib.new(kind, CONTENT).hexdigest()}"
    get(site, tmp_path, checksum=right)
    (tmp_path / "data.bin").write_bytes(b"mine")
    site.files["data.bin"] = CONTENT[:-1] + b"!"
    wrong = f"{kind}:{hashlib.new(kind, site.files['data.bin']).hexdigest()}"
    with pytest.raises(ConfigError) as raised:
        get(site, tmp_path, checksum=right)
    text = str(raised.value)
    assert f"data.bin: expected {right}, found {wrong}: not the published file" in text
    assert text.endswith(f"download it on another one and put it at {tmp_path / 'data.bin'}")
    assert "\n" not in text
    assert left(tmp_path) == ["data.bin"]
    assert (tmp_path / "data.bin").read_bytes() == b"mine"


def test_mirrors_are_tried_in_order(site: Site, tmp_path: Path) -> None:
    site.status["first.bin"] = 403
    urls = tuple(site.url + name for name in ("first.bin", "second.bin", "data.bin"))
    get(site, tmp_path, urls=urls)
    assert [name for name, _ in site.asked] == ["first.bin", "second.bin", "data.bin"]
    (tmp_path / "data.bin").unlink()
    with pytest.raises(ConfigError) as raised:
        get(site, tmp_path, urls=urls[:2])
    assert "first.bin: the server answered 403 Forbidden; " in str(raised.value)
    assert "second.bin: the server answered 404 Not Found; " in str(raised.value)


def test_a_part_of_one_mirror_is_not_continued_from_another(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path)
    site.files["other.bin"] = CONTENT
    get(site, tmp_path, urls=(site.url + "other.bin",))
    assert site.asked == [("other.bin", None)]


def test_a_server_in_trouble_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.status["data.bin"] = 503
    with pytest.raises(ConfigError, match="the server answered 503 Service Unavailable"):
        get(site, tmp_path)
    assert len(site.asked) == fetching.TRIES


def test_no_network_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:  # a port on which nothing listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/data.bin"
        with pytest.raises(ConfigError) as raised:
            fetching.fetch([Download((url,), "data.bin")], tmp_path, lambda *_: None)
    text = str(raised.value)
    assert text.startswith(f"{url}: cannot be reached (")
    assert text.endswith(
        "; if this machine cannot get the file, download it on another one and put it at "
        f"{tmp_path / 'data.bin'}"
    )
    assert "\n" not in text


def test_a_folder_that_cannot_be_written_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="taken cannot be written: File exists"):
        get(site, tmp_path / "taken")
    (tmp_path / "data.bin.part").mkdir()
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        get(site, tmp_path)


def test_two_fetches_at_once_are_refused(site: Site, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".fetch.lock"),
        pytest.raises(ConfigError, match="another process is fetching it"),
    ):
        get(site, tmp_path)


def test_the_process_that_fetches_is_named(site: Site, tmp_path: Path) -> None:
    with (
        locking.held(tmp_path / ".fetch.lock", "mnist"),
        pytest.raises(ConfigError, match=rf"process {os.getpid()} on .* is fetching it"),
    ):
        get(site, tmp_path)


def test_notes_of_a_download_hold_what_resuming_needs(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path)
    note = json.loads((tmp_path / "data.bin.part.json").read_text())
    assert note == {"url": site.url + "data.bin", "validator": '"v1"'}


# archives


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("pictures/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


def get_archive(site: Site, folder: Path, packed: bytes) -> None:
    site.files["data.bin"] = packed
    get(site, folder, checksum=md5(packed), unpack="pictures")


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("top", ["pictures/", ""])
def test_an_archive_becomes_a_folder(
    site: Site, tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes], top: str
) -> None:
    get_archive(site, tmp_path, pack({f"{top}a/1.txt": b"one", f"{top}2.txt": b"two"}))
    assert left(tmp_path) == ["pictures"]
    found = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*.txt")}
    assert found == {"pictures/a/1.txt": b"one", "pictures/2.txt": b"two"}
    assert not (tmp_path / "pictures/link").exists()
    get_archive(site, tmp_path, b"")  # it is there: nothing is requested
    assert len(site.asked) == 1


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["../out.txt", "/tmp/fedbench-out.txt", "pictures/../../out.txt"])
def test_an_archive_that_points_outside_is_refused(
    site: Site, tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes], name: str
) -> None:
    with pytest.raises(ConfigError, match=r"refused: its .* is not a plain relative path"):
        get_archive(site, tmp_path / "in", pack({"pictures/ok.txt": b"", name: b"out"}))
    assert not (tmp_path / "in/pictures").exists()
    assert not list(tmp_path.rglob("*out.txt"))


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_damaged_archive_leaves_no_half_folder(
    site: Site, tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    packed = bytearray(pack({f"pictures/{n}.txt": bytes(range(256)) * 40 for n in range(9)}))
    for damaged in (packed[: len(packed) // 2], packed[:-30], b"no archive at all"):
        with pytest.raises(ConfigError, match="damaged archive") as raised:
            get_archive(site, tmp_path, bytes(damaged))
        assert "\n" not in str(raised.value)
        assert left(tmp_path) == ["data.bin"]
