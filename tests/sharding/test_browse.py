"""browse: pages over a real server on 127.0.0.1, with hostile names, hosts, addresses and methods."""

from __future__ import annotations

import http.client
import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sharding.browse import serve
from sharding.manifest import VOCABULARY, Label, Manifest, read_manifest, vocabulary_bytes, write_manifest
from sharding.samples import Sample, make_key
from sharding.tar import read_shard, write_shard

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


@contextmanager
def server_of(folder: str) -> Iterator[str]:
    with serve(folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def address(class_shards: str) -> Iterator[str]:
    with server_of(class_shards) as where:
        yield where


def get(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        return str(answer.read().decode())


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


class Tags(HTMLParser):
    """Every tag with its attributes, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def positions(text: str) -> list[int]:
    found = [attrs.get("href") or "" for tag, attrs in Tags(text).found if tag == "a"]
    return [int(m[1]) for href in found if (m := re.fullmatch(r"/sample\?position=(\d+)", href))]


def test_pages_walk_over_every_sample_once(address: str) -> None:
    first, second = get(address), get(f"{address}/?start=48")
    assert positions(first) == list(range(48))
    assert positions(second) == list(range(48, 96))
    assert "start=48" in first


def test_an_image_is_the_stored_bytes(address: str, class_shards: str) -> None:
    shards = [f"{class_shards}/{shard.name}" for shard in read_manifest(class_shards).shards]
    samples = [sample for shard in shards for sample in read_shard(shard)]
    for position in (0, 50, 95):
        with urllib.request.urlopen(f"{address}/image?position={position}&member=jpg") as answer:
            assert answer.read() == samples[position].members["jpg"]
            assert answer.headers["Content-Type"] == "image/jpeg"
        assert samples[position].key in get(f"{address}/sample?position={position}")
    assert status(f"{address}/image?position=0&member=json") == 404  # only images are served raw


def test_a_label_filter_shows_all_of_the_label(address: str, class_shards: str) -> None:
    shards = [f"{class_shards}/{shard.name}" for shard in read_manifest(class_shards).shards]
    labels = [sample.members["cls"] for shard in shards for sample in read_shard(shard)]
    expected = [i for i, label in enumerate(labels) if label == b"2"]
    assert positions(get(f"{address}/?label=square")) == expected
    assert status(f"{address}/?label=hexagon") == 404


def test_search_by_key_prefix_and_by_source(address: str) -> None:
    key = make_key("3/7.jpg")
    for words in (key, key[:9], "3/7.jpg"):
        (position,) = positions(get(f"{address}/search?q={urllib.parse.quote(words)}"))
        assert key in get(f"{address}/sample?position={position}")
    assert positions(get(f"{address}/search?q=nothing")) == []
    assert len(positions(get(f"{address}/search?q={key[:1]}"))) > 1


def test_only_this_machine_by_name_only_get_only_known_pages(address: str) -> None:
    port = int(address.rpartition(":")[2])

    def ask(method: str, path: str, host: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request(method, path, headers={"Host": host})
        return connection.getresponse().status

    assert ask("GET", "/", f"localhost:{port}") == 200
    for host in (f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", f"127.0.0.1:{port}.evil.example", ""):
        assert ask("GET", "/", host) == 403
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(method, "/", f"127.0.0.1:{port}") == 501
    for path in ("/../../etc/passwd", "//etc/passwd", "/%2e%2e/etc/passwd", "/manifest.json", "/shard-000000.tar"):
        assert ask("GET", path, f"127.0.0.1:{port}") == 404
    for query in (
        "position=-1",
        "position=96",
        "position=1e3",
        "position=" + "9" * 30,
        "position=%C2%B2",
        "position=../0",
    ):
        assert ask("GET", f"/sample?{query}", f"127.0.0.1:{port}") == 404
        assert ask("GET", f"/image?{query}&member=jpg", f"127.0.0.1:{port}") == 404


@pytest.fixture
def hostile(tmp_path: Path, class_shards: str) -> str:
    """Markup in every text that a page shows: sources, texts, labels, reject rows, a member that poses as an image."""
    jpeg = next(iter(read_shard(f"{class_shards}/shard-000000.tar"))).members["jpg"]
    facts = json.dumps({"source": EVIL, "text": EVIL}).encode()
    key = make_key(EVIL)
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    samples = sorted(
        [
            Sample(key, {"jpg": jpeg, "json": facts, "cls": b"0"}),
            Sample(make_key("b"), {"jpg": svg, "json": b"[" * 5000}),
        ],
        key=lambda sample: sample.key,
    )
    shard = write_shard(str(tmp_path), "shard-000000.tar", samples)
    (tmp_path / VOCABULARY).write_bytes(vocabulary_bytes([Label(0, EVIL, (), 1)]))
    row = {"source": EVIL, "stage": EVIL, "reason": EVIL, "message": EVIL}
    rows = [row, *({"source": f"{i}.jpg", "reason": "empty"} for i in range(60))]
    (tmp_path / "rejects.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + "no json\n")
    rejected = {EVIL: 1, "empty": 61}
    write_manifest(str(tmp_path), Manifest("t", {}, 64, 2, rejected, (shard,), {"labels": 1}))
    return str(tmp_path)


def test_hostile_texts_stay_text(hostile: str) -> None:
    quoted = urllib.parse.quote(EVIL)
    with server_of(hostile) as address:
        pages = [
            "/", "/sample?position=0", "/sample?position=1", f"/search?q={quoted}", f"/?label={quoted}", "/rejects",
            f"/rejects?reason={quoted}",
        ]  # fmt: skip
        for page in pages:
            with urllib.request.urlopen(address + page) as answer:
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                text = answer.read().decode()
            tags = Tags(text).found
            assert "script" not in [tag for tag, _ in tags]
            assert not [attrs for _, attrs in tags if any(name.startswith("on") for name in attrs)]
            assert "alert(1)" in text or page == "/sample?position=1"  # shown, as text
        evil = next(i for i in (0, 1) if status(f"{address}/image?position={i}&member=jpg") == 404)
        assert (
            status(f"{address}/image?position={1 - evil}&member=jpg") == 200
        )  # the other is a JPEG, the svg is not served
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(f"{address}/{quoted}")
        assert missing.value.headers["Content-Type"].startswith("text/plain")


def test_rejects_by_reason_in_pages(hostile: str) -> None:
    with server_of(hostile) as address:
        first = get(f"{address}/rejects?reason=empty")
        assert "0.jpg" in first
        assert "47.jpg" in first
        assert "48.jpg" not in first
        (following,) = re.findall(r'href="(/rejects\?reason=empty&amp;offset=\d+)"', first)
        second = get(address + following.replace("&amp;", "&"))
        assert "48.jpg" in second
        assert "47.jpg" not in second
