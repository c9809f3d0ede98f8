import functools
import http.server
import socket
import threading

import pytest

from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.errors import InputError


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if "/short" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
        else:
            super().do_GET()

    def log_message(self, *_):
        self.server.asked.append(f"{self.command} {self.path}")


@pytest.fixture
def server(tmp_path):
    (tmp_path / "public").mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / "public"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def address(server, name):
    return f"http://127.0.0.1:{server.server_port}/{name}"


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl.gz", "a.csv.zst", "a.txt.xz", "a.parquet", "a.arrow"])
def test_a_remote_file_gives_what_the_local_one_gives_and_nothing_else_is_opened(server, tmp_path, kit, name, monkeypatch):
    connect, peers = socket.socket.connect, []
    monkeypatch.setattr(socket.socket, "connect", lambda self, peer: peers.append(peer) or connect(self, peer))
    kind, _, compression = name[1:].partition(".")[2].partition(".")
    content = kit.content[f".{kind}"](kit.documents)
    path = tmp_path / "public" / name
    path.write_bytes(kit.compress[f".{compression}" if compression else ""](content))
    local, remote = (TextFiles(place, separator=kit.separator) for place in (str(path), address(server, name)))
    assert kit.splits_of(remote) == kit.splits_of(local)
    assert remote.name == name
    assert {request.split()[1] for request in server.asked} == {f"/{name}"}
    assert not peers or {peer[1] for peer in peers} == {server.server_port}


def test_what_a_server_says_of_a_file_is_its_state(server, tmp_path):
    path = tmp_path / "public" / "a.txt"
    path.write_text("before")
    source = TextFiles(address(server, "a.txt"))
    state = source.state()
    assert state["files"][address(server, "a.txt")]["size"] == 6
    assert source.changed(state) is None
    path.write_text("longer than before")
    assert source.changed(state) == f"{address(server, 'a.txt')} has changed"
    path.unlink()
    assert source.changed(state) is None


def test_a_file_that_no_server_gives_is_refused_by_address(server, tmp_path):
    (tmp_path / "public" / "short.txt").write_text("text")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/a.txt"
        for place, complaint in [
            (address(server, "missing.txt"), "cannot be read: the server answers 404"),
            (address(server, "missing.parquet"), "cannot be read: the server answers 404"),
            (address(server, "short.txt"), "cannot be read: .*payload"),
            (address(server, "page.html"), "unknown kind"),
            (closed, "cannot be read: .*[Cc]onnect"),
        ]:
            with pytest.raises(InputError, match=f"{place} .*{complaint}") as refused:
                list(TextFiles(place, validation=place).pieces("train"))
            assert "\n" not in str(refused.value)
        for place in (closed, address(server, "missing.txt")):
            with pytest.raises(InputError, match=f"{place} cannot be read"):
                TextFiles(place).state()
