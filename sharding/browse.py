"""`omnishard shards browse DIR`: a dataset as pages on this machine, read at random straight from the tars.

Nothing is loaded at the start but the manifest; a page reads the indices and bytes of what it shows. All text comes from
data that anybody may have written, so it is escaped, scripts are forbidden by the page's policy, only images known by
their first bytes are served, and requests that name another host are turned away (a web page elsewhere could have its own
name resolve to this machine).
"""

from __future__ import annotations

import functools
import json
import random
import re
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np

from sharding.errors import InputError
from sharding.files import exists, join, open_read
from sharding.order import ADOPTED, REJECTS, shard_rows, shard_with
from sharding.plan import open_plan
from sharding.samples import KEY_DIGITS, Sample, decode_labels, make_key
from sharding.stream import read_rows, read_sample

if TYPE_CHECKING:
    from markupsafe import Markup

_PER_PAGE = 48
_LOOK_AT = 20_000  # samples, keys or reject rows that one request looks at before it answers and offers to go on
_MOST_TEXT = 20_000  # characters of a member that are shown
_IMAGES = ("jpg", "jpeg", "png", "webp", "gif")
_MAGIC = ((rb"\xff\xd8\xff", "image/jpeg"), (rb"\x89PNG\r\n\x1a\n", "image/png"), (rb"RIFF....WEBP", "image/webp"),
          (rb"GIF8[79]a", "image/gif"))  # fmt: skip
_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"

Query = Mapping[str, str]


class NotFound(Exception):
    """What was asked for is not in the dataset; the message is shown."""


class Browser:
    """A dataset as pages: each method answers one address with HTML.

    Raises:
        InputError: when the folder is no finished dataset.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.plan = open_plan([folder])
        self.manifest = self.plan.manifests[0]
        self.ends = np.cumsum([shard.samples for shard in self.manifest.shards])
        self.names = [label.name for label in self.plan.vocabulary]
        self._labels = functools.lru_cache(maxsize=1024)(self._read_labels)

    def samples(self, query: Query) -> str:
        """A page of samples from a position on, of one label when one is asked for."""
        start = self._number(query, "start", self.manifest.kept)
        wanted = query.get("label", "").strip()
        if wanted:
            if wanted not in self.names:
                raise NotFound(f"No label is called {wanted!r}.")
            found, after = self._with_label(self.names.index(wanted), start)
        else:
            found = list(range(start, min(start + _PER_PAGE, self.manifest.kept)))
            after = start + _PER_PAGE
        steps = {}
        if start:
            steps["first"] = self._href("/", label=wanted)
            if not wanted:
                steps["previous"] = self._href("/", start=max(0, start - _PER_PAGE))
        if after < self.manifest.kept:
            steps["next"] = self._href("/", start=after, label=wanted)
        steps["anywhere"] = self._href("/", start=random.randrange(self.manifest.kept), label=wanted)
        words = f"Samples {start:,} to {min(after, self.manifest.kept) - 1:,} of {self.manifest.kept:,}"
        if wanted:
            words += f" looked at: {len(found)} carry {wanted!r}"
        return self._page(words, self._grid(found), _links(steps), query=query)

    def sample(self, query: Query) -> str:
        """One sample with all its members."""
        from sharding import report

        position = self._number(query, "position", self.manifest.kept)
        sample, shard, record = self._read(position)
        members = read_rows(self.plan, 0, shard)[record]
        blocks = [self._picture(position, sample, whole=True)]
        rows = [[m.extension, m.size, m.offset] for m in members]
        facts = [
            report.table(["member", "bytes", "offset in the tar"], rows),
            report.text(f"{self.manifest.shards[shard].name}, record {record}, position {position:,}"),
            report.text("labels: " + (", ".join(self._label_names(sample)) or "none")),
        ]
        texts = [
            _fill('<p>{}</p><pre style="white-space:pre-wrap;overflow-wrap:anywhere">{}</pre>', name, _readable(data))
            for name, data in sample.members.items()
            if name.rpartition(".")[2] not in _IMAGES and name not in ("mp4", "npy")
        ]
        steps = {"previous": self._href("/sample", position=position - 1)} if position else {}
        if position + 1 < self.manifest.kept:
            steps["next"] = self._href("/sample", position=position + 1)
        steps["its neighbours"] = self._href("/", start=position)
        return self._page(sample.key, *blocks, *facts, *texts, _links(steps), query=query)

    def search(self, query: Query) -> str:
        """The sample of a key, of the beginning of a key, or of a source."""
        words = query.get("q", "").strip()
        start = self._number(query, "shard", len(self.manifest.shards))
        found, after = self._with_key(words, start) if words else ([], len(self.manifest.shards))
        steps = {}
        if after < len(self.manifest.shards):
            steps["look on"] = self._href("/search", q=words, shard=after)
        return self._page(f"{len(found)} found for {words!r}", self._grid(found), _links(steps), query=query)

    def rejects(self, query: Query) -> str:
        """A page of reject rows from a byte offset on, of one reason when one is asked for."""
        from sharding import report

        reason, offset = query.get("reason", ""), self._number(query, "offset", 1 << 62)
        rows: list[list[str]] = []
        path = join(self.folder, REJECTS)
        more = False
        if exists(path):
            with open_read(path) as file:
                file.seek(offset)
                for line in (file.readline() for _ in range(_LOOK_AT)):
                    if not line or len(rows) == _PER_PAGE:
                        more = bool(line)
                        break
                    offset += len(line)
                    row = _parse(line)
                    if not reason or row.get("reason") == reason:
                        rows.append([str(row.get(name, "")) for name in ("source", "stage", "reason", "message")])
                else:
                    more = True
        reasons = {"all": self._href("/rejects")} | {
            f"{name} ({count:,})": self._href("/rejects", reason=name) for name, count in self.manifest.rejected.items()
        }
        steps = {"next": self._href("/rejects", reason=reason, offset=offset)} if more else {}
        total = self.manifest.rejected.get(reason, 0) if reason else self.manifest.read - self.manifest.kept
        table = report.table(["source", "stage", "reason", "found"], rows)
        words = f"Rejected records{': ' + reason if reason else ''} ({total:,})"
        return self._page(words, _links(reasons), table, _links(steps), query=query)

    def image(self, query: Query) -> tuple[bytes, str]:
        """The stored bytes of a sample's image, and their type."""
        sample, _, _ = self._read(self._number(query, "position", self.manifest.kept))
        data = sample.members.get(query.get("member", ""), b"")
        kind = next((kind for magic, kind in _MAGIC if re.match(magic, data, re.DOTALL)), "")
        if not kind:
            raise NotFound("That member is no image.")
        return data, kind

    def _number(self, query: Query, name: str, below: int) -> int:
        text = query.get(name, "") or "0"
        if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < below):
            raise NotFound(f"{name} is a number from 0 to {below - 1}; found {text[:40]!r}.")
        return int(text)

    def _place(self, position: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.ends, position, side="right"))
        return shard, position - int(self.ends[shard]) + self.manifest.shards[shard].samples

    def _read(self, position: int) -> tuple[Sample, int, int]:
        shard, record = self._place(position)
        return read_sample(self.plan, 0, shard, record), shard, record

    def _first(self, shard: int) -> int:
        return int(self.ends[shard]) - self.manifest.shards[shard].samples

    def _read_labels(self, shard: int) -> list[list[int]]:
        extensions = ("cls", "tags.json")
        records = range(self.manifest.shards[shard].samples)
        return [decode_labels(read_sample(self.plan, 0, shard, record, extensions).members) for record in records]

    def _with_label(self, label: int, start: int) -> tuple[list[int], int]:
        """Positions from `start` on that carry the label, and the position up to which it was looked."""
        found: list[int] = []
        position, looked_at = start, 0
        while position < self.manifest.kept:
            shard, record = self._place(position)
            labels = self._labels(shard)
            for record_ in range(record, len(labels)):
                if label in labels[record_]:
                    found.append(position)
                position += 1
                if len(found) == _PER_PAGE:
                    return found, position
            looked_at += len(labels)
            if looked_at >= _LOOK_AT:
                break
        return found, position

    def _with_key(self, words: str, start: int) -> tuple[list[int], int]:
        """Positions of the samples whose key begins with the words, or whose source they are; and the shard to go on with."""
        if self.manifest.job == ADOPTED:
            found: list[int] = []
            looked_at = 0
            for shard in range(start, len(self.manifest.shards)):
                found += [
                    self._first(shard) + row.record for row in shard_rows(self.plan, shard) if row.key.startswith(words)
                ]
                looked_at += self.manifest.shards[shard].samples
                if looked_at >= _LOOK_AT or len(found) >= _PER_PAGE:
                    return found[:_PER_PAGE], shard + 1
            return found[:_PER_PAGE], len(self.manifest.shards)
        for prefix in [words.lower()] * bool(re.fullmatch(f"[0-9a-fA-F]{{1,{KEY_DIGITS}}}", words)) + [make_key(words)]:
            found = []
            for shard in range(shard_with(self.plan, prefix), len(self.manifest.shards)):
                rows = list(shard_rows(self.plan, shard))
                found += [self._first(shard) + row.record for row in rows if row.key.startswith(prefix)]
                if rows[-1].key[: len(prefix)] > prefix or len(found) >= _PER_PAGE:
                    break
            if found:
                return found[:_PER_PAGE], len(self.manifest.shards)
        return [], len(self.manifest.shards)

    def _label_names(self, sample: Sample) -> list[str]:
        ids = decode_labels(sample.members)
        return [self.names[i] if 0 <= i < len(self.names) else str(i) for i in ids]

    def _grid(self, positions: list[int]) -> Markup:
        figures = []
        for position in positions:
            sample, _, _ = self._read(position)
            href = self._href("/sample", position=position)
            caption = ", ".join(self._label_names(sample)) or _source(sample) or sample.key
            picture = self._picture(position, sample)
            figures.append(
                _fill('<figure><a href="{}">{}</a><figcaption>{}</figcaption></figure>', href, picture, caption)
            )
        return _fill('<div class="photos">{}</div>', _fill("{}" * len(figures), *figures))

    def _picture(self, position: int, sample: Sample, whole: bool = False) -> Markup:
        member = next((name for name in sample.members if name.rpartition(".")[2] in _IMAGES), None)
        if member is None:
            return _fill("<p>{}</p>", f"no image: {' '.join(sample.members)}")
        style = "max-width:100%" if whole else ""
        address = self._href("/image", position=position, member=member)
        return _fill('<img src="{}" alt="{}" loading="lazy" style="{}">', address, _source(sample) or sample.key, style)

    @staticmethod
    def _href(path: str, **values: object) -> str:
        given = {name: value for name, value in values.items() if value not in ("", None)}
        return f"{path}?{urlencode(given)}" if given else path

    def _page(self, title: str, *blocks: Markup, query: Query) -> str:
        from sharding import report

        ranked = sorted(self.plan.vocabulary, key=lambda label: -label.count)[:200]
        options = _fill("{}" * len(ranked), *(_fill('<option value="{}">', label.name) for label in ranked))
        label_form = _fill(
            '<form action="/"><input name="label" list="labels" placeholder="label" value="{}"><datalist id="labels">{}</datalist>'
            " <button>show</button></form>",
            query.get("label", ""),
            options,
        )
        forms = _fill(
            '<div style="display:flex;flex-wrap:wrap;gap:.6rem 1.4rem;margin-bottom:.9rem">{}<form action="/search">'
            '<input name="q" size="30" placeholder="key, or source" value="{}"> <button>find</button></form></div>',
            label_form if self.names else "",
            query.get("q", ""),
        )
        shown = {"samples": "/"} | ({"rejects": "/rejects"} if self.manifest.read > self.manifest.kept else {})
        return report.page(
            self.folder.rstrip("/").rpartition("/")[2] or self.folder,
            report.section("Look", _links(shown), forms),
            report.section(title, *blocks),
            subtitle=f"{self.manifest.job}: {self.manifest.kept:,} samples in {len(self.manifest.shards):,} shards, "
            f"{len(self.names):,} labels",
        )


def serve(folder: str, port: int = 0) -> ThreadingHTTPServer:
    """A server for the dataset on 127.0.0.1; `port` 0 takes a free one. Call its `serve_forever`.

    Raises:
        InputError: when the folder is no finished dataset, or the port is taken.
    """
    browser = Browser(folder)
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Handler, browser))
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--port must be free; {port} cannot be taken ({error}). Without it a free one is found."
        ) from None


class _Handler(BaseHTTPRequestHandler):
    """Only GET is answered, and only to a browser that knows this server as this machine."""

    server_version, sys_version = "omnishard", ""
    timeout = 30  # seconds that an idle connection may hold a thread

    def __init__(self, browser: Browser, *rest: object) -> None:
        self.browser = browser
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        port = self.connection.getsockname()[1]
        if self.headers.get("Host", "") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            self._answer(403, b"This server answers to 127.0.0.1 and localhost only.\n", "text/plain; charset=utf-8")
            return
        address = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(address.query, errors="replace").items()}
        pages = {
            "/": self.browser.samples,
            "/sample": self.browser.sample,
            "/search": self.browser.search,
            "/rejects": self.browser.rejects,
        }
        try:
            if address.path == "/image":
                self._answer(200, *self.browser.image(query))
            elif address.path in pages:
                text = pages[address.path](query)
                self._answer(200, text.encode("utf-8", "backslashreplace"), "text/html; charset=utf-8")
            else:
                raise NotFound("There is no such page.")
        except NotFound as error:
            self._answer(404, str(error).encode("utf-8", "backslashreplace"), "text/plain; charset=utf-8")
        except (
            InputError,
            OSError,
            ValueError,
        ) as error:  # a damaged shard spoils the pages that show it, not the others
            words = f"This part of the dataset cannot be read: {error}. See omnishard shards verify."
            self._answer(500, words.encode("utf-8", "backslashreplace"), "text/plain; charset=utf-8")

    def _answer(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Content-Type-Options": "nosniff"}
        headers |= {
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The terminal stays free for the address."""


def _fill(template: str, *values: object) -> Markup:
    """Our own markup with every value escaped that is not markup itself."""
    from markupsafe import Markup

    return Markup(template).format(*values)


def _links(items: Mapping[str, str]) -> Markup:
    from sharding import report

    return report.links(items)


def _parse(data: bytes) -> dict[str, object]:
    try:
        row = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _source(sample: Sample) -> str:
    return str(_parse(sample.members.get("json", b"")).get("source", ""))


def _readable(data: bytes) -> str:
    text = data[:_MOST_TEXT].decode("utf-8", "replace")
    row = _parse(data) if len(data) <= _MOST_TEXT else {}
    return json.dumps(row, ensure_ascii=False, indent=1) if row else text + (" ..." if len(data) > _MOST_TEXT else "")
