"""Downloads from a small server that behaves like the Hugging Face hub, and misbehaves on request."""

import hashlib
import io
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fpga.fpga_core.errors import DownloadError
from fpga.fpga_core.faces.model_packs import KNOWN_PACKS, ModelPack, PackFile, known_pack
from fpga.fpga_core.faces.pack_download import (
    _SecureRedirects,
    damaged_files,
    download_pack,
    file_sha256,
    missing_files,
)
from fpga.fpga_core.identity.recognisers import KNOWN_RECOGNISERS

CHUNK_BYTES = 2**18
DETECTOR = bytes(range(256)) * 5_000 + b"detector"  # five of the client's chunks
RECOGNISER = b"recogniser" * 1000


@dataclass
class Hub:
    """Serves files below `/<repository>/resolve/<revision>/`, and records the requests."""

    files: dict[str, bytes]
    ignores_ranges: bool = False
    shift: int = 0
    ends_after: int | None = None
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    prefix = "/someone/pack/resolve/abc123/models/small"
    hub = Hub({f"{prefix}/det.onnx": DETECTOR, f"{prefix}/rec.onnx": RECOGNISER})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            span = self.headers.get("Range")
            hub.requests.append((Path(self.path).name, span))
            hub.headers.append(dict(self.headers))
            if self.path not in hub.files:
                self.send_error(404)
                return
            contents = hub.files[self.path]
            start = int(span.removeprefix("bytes=").rstrip("-")) if span and not hub.ignores_ranges else 0
            start = max(start - hub.shift, 0)
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(contents) - 1}/{len(contents)}")
            self.send_header("Content-Length", str(len(contents) - start))
            self.end_headers()
            try:
                self.wfile.write(contents[start : None if hub.ends_after is None else start + hub.ends_after])
            except ConnectionError:
                self.close_connection = True  # the client stopped, as some tests do

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    template = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("fpga.fpga_core.faces.pack_download.CHUNK_BYTES", CHUNK_BYTES)
    yield hub
    server.shutdown()
    server.server_close()


def file(name: str, contents: bytes) -> PackFile:
    return PackFile(name, len(contents), hashlib.sha256(contents).hexdigest())


PACK = ModelPack(
    name="small",
    licence="none",
    repository="someone/pack",
    revision="abc123",
    folder="models/small",
    files=(file("det.onnx", DETECTOR), file("rec.onnx", RECOGNISER)),
)


def ignore(done: int, total: int) -> None:
    pass


class Stop(Exception):
    """The error that a user's Cancel raises."""


def stop_after(num_bytes: int):
    def progress(done: int, total: int) -> None:
        if done >= num_bytes:
            raise Stop

    return progress


def test_a_whole_pack_arrives_with_its_progress(hub, tmp_path):
    seen = []
    download_pack(PACK, tmp_path / "new" / "small", lambda done, total: seen.append((done, total)))
    assert (tmp_path / "new" / "small" / "det.onnx").read_bytes() == DETECTOR
    assert (tmp_path / "new" / "small" / "rec.onnx").read_bytes() == RECOGNISER
    assert sorted(path.name for path in (tmp_path / "new" / "small").iterdir()) == ["det.onnx", "rec.onnx"]
    total = len(DETECTOR) + len(RECOGNISER)
    assert {t for _, t in seen} == {total} and seen[0][0] == 0 and seen[-1][0] == total
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_only_what_is_missing_is_asked_for(hub, tmp_path):
    (tmp_path / "det.onnx").write_bytes(b"the user's own")
    assert [f.name for f in missing_files(PACK, tmp_path)] == ["rec.onnx"]
    download_pack(PACK, tmp_path, ignore)
    assert [name for name, _ in hub.requests] == ["rec.onnx"]
    assert (tmp_path / "det.onnx").read_bytes() == b"the user's own"
    download_pack(PACK, tmp_path, ignore)
    assert len(hub.requests) == 1


def test_an_interrupted_download_goes_on_from_there(hub, tmp_path):
    with pytest.raises(Stop):
        download_pack(PACK, tmp_path, stop_after(2 * CHUNK_BYTES))
    kept = (tmp_path / "det.onnx.part").stat().st_size
    assert 2 * CHUNK_BYTES <= kept < len(DETECTOR) and not (tmp_path / "det.onnx").exists()
    seen = []
    download_pack(PACK, tmp_path, lambda done, total: seen.append(done))
    assert seen[0] == kept
    assert hub.requests == [("det.onnx", None), ("det.onnx", f"bytes={kept}-"), ("rec.onnx", None)]
    assert file_sha256(tmp_path / "det.onnx") == PACK.files[0].sha256
    assert not list(tmp_path.glob("*.part"))


def test_a_server_that_cannot_resume_still_gives_the_right_file(hub, tmp_path):
    hub.ignores_ranges = True
    (tmp_path / "det.onnx.part").write_bytes(DETECTOR[:1000])
    download_pack(PACK, tmp_path, ignore)
    assert (tmp_path / "det.onnx").read_bytes() == DETECTOR


def test_a_server_that_continues_elsewhere_is_not_believed(hub, tmp_path):
    """Its answer is a part of the file, but not the part that was asked for."""
    hub.shift = 7
    (tmp_path / "det.onnx.part").write_bytes(DETECTOR[:1000])
    download_pack(PACK, tmp_path, ignore)
    assert (tmp_path / "det.onnx").read_bytes() == DETECTOR
    assert hub.requests[:2] == [("det.onnx", "bytes=1000-"), ("det.onnx", None)]


def test_a_connection_that_ends_early_is_resumed_at_once(hub, tmp_path):
    hub.ends_after = len(DETECTOR) // 2 + 1
    download_pack(PACK, tmp_path, ignore)
    assert (tmp_path / "det.onnx").read_bytes() == DETECTOR
    assert hub.requests[1] == ("det.onnx", f"bytes={hub.ends_after}-")


def test_a_connection_that_gives_nothing_is_named_and_what_came_is_kept(hub, tmp_path):
    (tmp_path / "det.onnx.part").write_bytes(DETECTOR[:1000])
    hub.ends_after = 0
    with pytest.raises(DownloadError, match="run again to resume.*ended after 1,000 of 1,280,008 bytes"):
        download_pack(PACK, tmp_path, ignore)
    assert (tmp_path / "det.onnx.part").read_bytes() == DETECTOR[:1000]


def test_the_user_s_token_is_not_sent(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    download_pack(PACK, tmp_path, ignore)
    assert len(hub.headers) == 2
    for headers in hub.headers:
        assert "authorization" not in {name.lower() for name in headers} and "hf_secret" not in str(headers)


@pytest.mark.parametrize("target", ["http://elsewhere.example/det.onnx", "HTTP://elsewhere.example/", "ftp://a/b"])
def test_a_redirect_to_a_connection_that_is_not_encrypted_is_refused(target):
    request = urllib.request.Request("https://hub.example/det.onnx")
    with pytest.raises(DownloadError, match=r"put the file into the folder yourself: 'hub\.example' .* not encrypted"):
        _SecureRedirects().redirect_request(request, io.BytesIO(), 302, "Found", HTTPMessage(), target)


def test_other_redirects_are_followed_with_their_range():
    request = urllib.request.Request("https://hub.example/det.onnx", headers={"Range": "bytes=5-"})
    followed = _SecureRedirects().redirect_request(
        request, io.BytesIO(), 302, "Found", HTTPMessage(), "https://cdn.example/det.onnx"
    )
    assert followed.full_url == "https://cdn.example/det.onnx" and followed.get_header("Range") == "bytes=5-"


@pytest.mark.parametrize("leftover", [len(DETECTOR), len(DETECTOR) + 5], ids=["complete", "too long"])
def test_leftovers_are_used_or_thrown_away(hub, tmp_path, leftover):
    (tmp_path / "det.onnx.part").write_bytes((DETECTOR + b"xxxxx")[:leftover])
    download_pack(PACK, tmp_path, ignore)
    assert (tmp_path / "det.onnx").read_bytes() == DETECTOR


def test_a_wrong_file_is_deleted_and_never_used(hub, tmp_path):
    wrong = replace(PACK, files=(PackFile("rec.onnx", 10_000, "0" * 64),))
    with pytest.raises(DownloadError, match="SHA-256 begins with .*, not 000000000000"):
        download_pack(wrong, tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_gone_says_where_it_was_and_what_to_do(hub, tmp_path):
    hub.files.clear()
    with pytest.raises(DownloadError, match=r"someone/pack.*put the file into.*404") as caught:
        download_pack(PACK, tmp_path, ignore)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(hub, tmp_path):
    (tmp_path / "occupied").write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="cannot be downloaded"):
        download_pack(PACK, tmp_path / "occupied" / "small", ignore)


def test_damaged_files_are_told_from_missing_ones(tmp_path):
    (tmp_path / "det.onnx").write_bytes(DETECTOR[:-1])
    assert damaged_files(PACK, tmp_path) == ["det.onnx"]
    (tmp_path / "det.onnx").write_bytes(DETECTOR)
    assert damaged_files(PACK, tmp_path) == []


def test_known_packs_are_complete_and_plausible():
    assert {pack.name for pack in KNOWN_PACKS} == {"buffalo_l", "antelopev2", "auraface", "buffalo_sc"}
    for pack in KNOWN_PACKS:
        assert known_pack(pack.name.upper()) is pack
        assert "/" in pack.repository and len(pack.revision) == 40 and len(pack.files) >= 2
        assert all(len(f.sha256) == 64 and f.num_bytes > 1_000_000 for f in pack.files)
    assert known_pack("mine") is None


def test_known_packs_hold_the_recognisers_that_identities_know():
    recognisers = {file.sha256 for pack in KNOWN_PACKS for file in pack.files} & KNOWN_RECOGNISERS.keys()
    assert recognisers == KNOWN_RECOGNISERS.keys()


def test_file_hash_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert (
        file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )  # FIPS 180
