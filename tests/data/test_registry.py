"""The registry: shipped, local, downloaded, offline; and bytes that are not the registered ones."""

import hashlib
import http.server
import threading

import pytest

from workbench.data.registry import DATASETS, SHIPPED, Dataset, fetch, sha256

BYTES = b"1,2,3\n"


def register(url=None):
    dataset = Dataset("numbers", "sub/numbers.csv", hashlib.sha256(BYTES).hexdigest(), "CC0", "made up here", url)
    return {"numbers": dataset}


@pytest.mark.parametrize("name", DATASETS)
def test_shipped_files_have_their_checksums_and_licences(name):
    dataset = DATASETS[name]
    assert sha256(fetch(name)) == dataset.sha256
    assert (SHIPPED.parent / dataset.licence.split(", ")[1]).is_file()


def test_local_copies_are_found_by_name(tmp_path, monkeypatch):
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "deep" / "numbers.csv").write_bytes(BYTES)
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "mine"))
    assert fetch("numbers", register(), tmp_path).read_bytes() == BYTES


def test_a_missing_file_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("WORKBENCH_DATA", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"it is not downloaded. Get it from: made up here\nSHA-256 [0-9a-f]{64}; put"
    ):
        fetch("numbers", register(), tmp_path)


def test_changed_bytes_are_refused(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "numbers.csv").write_bytes(BYTES[:-2])
    with pytest.raises(ValueError, match=r"it was changed or cut off\. Get it again from: made up here"):
        fetch("numbers", register(), tmp_path)


def test_unknown_names_list_the_nearest():
    with pytest.raises(ValueError, match="'detector_count' is unknown, did you mean 'detector_counts'"):
        fetch("detector_count")


class Server(http.server.BaseHTTPRequestHandler):
    """Serves the bytes once to this machine."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BYTES)))
        self.end_headers()
        self.wfile.write(BYTES)

    def log_message(self, *arguments):
        pass


def test_download_is_checked_cached_and_forbidden_offline(tmp_path, monkeypatch):
    monkeypatch.delenv("WORKBENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    datasets = register(f"http://127.0.0.1:{server.server_port}/numbers.csv")
    monkeypatch.setenv("WORKBENCH_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="downloads are switched off"):
        fetch("numbers", datasets, tmp_path)
    monkeypatch.delenv("WORKBENCH_OFFLINE")
    path = fetch("numbers", datasets, tmp_path)
    server.shutdown()
    server.server_close()
    assert path.read_bytes() == BYTES
    assert fetch("numbers", datasets, tmp_path) == path  # the server is gone: from the cache
    monkeypatch.setenv("WORKBENCH_OFFLINE", "1")
    assert fetch("numbers", datasets, tmp_path) == path
    monkeypatch.delenv("WORKBENCH_OFFLINE")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)could not be downloaded .*Get it from: http"):
        fetch("numbers", datasets, tmp_path)
