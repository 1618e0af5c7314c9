"""A web server with ranges, for `benchmark.py --remote`: nginx where it is installed, else one in Python, which takes
more of the processors that the loader needs.

    python -m benchmarks.range_server FOLDER     serves it on 127.0.0.1, and prints the port
"""
import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Iterator

_START_SECONDS = 30.0
_NGINX = """
{user} daemon off; pid {scratch}/pid; error_log {scratch}/errors; worker_processes 2;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
    client_body_temp_path {scratch}; proxy_temp_path {scratch}; fastcgi_temp_path {scratch};
    uwsgi_temp_path {scratch}; scgi_temp_path {scratch};
    server {{ listen 127.0.0.1:{port}; root "{folder}"; }}
}}
"""


def kind() -> str:
    """Which server it is."""
    return "nginx" if shutil.which("nginx") else "Python's http.server"


@contextlib.contextmanager
def serving(folder: str) -> Iterator[str]:
    """The URL of a folder, while the body runs. The server is a child of this process, and in its process group."""
    folder = os.path.abspath(folder)
    with tempfile.TemporaryDirectory() as scratch:
        if shutil.which("nginx"):
            port = _free_port()
            with open(os.path.join(scratch, "conf"), "w") as file:
                user = "" if os.geteuid() else "user root;"  # or its workers may not read what this user may
                file.write(_NGINX.format(user=user, scratch=scratch, folder=folder, port=port))
            server = subprocess.Popen(["nginx", "-p", scratch, "-c", os.path.join(scratch, "conf")])
        else:
            server = subprocess.Popen([sys.executable, "-m", "benchmarks.range_server", folder], text=True,
                                      stdout=subprocess.PIPE)
            assert server.stdout is not None
            port = int(server.stdout.readline())
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


class _Ranges(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """The size."""
        self._send(content=False)

    def do_GET(self) -> None:
        """A range, or all."""
        self._send(content=True)

    def _send(self, *, content: bool) -> None:
        try:
            file = open(self.translate_path(self.path), "rb")
        except OSError:
            self.send_error(404)
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            wanted = self.headers.get("Range", "")
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first or 0), min(size, int(last or size - 1) + 1)
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            self.wfile.flush()
            while content and start < end:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, end - start)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def main(folder: str) -> None:
    """Serves until it is killed."""
    os.chdir(folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ranges)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
