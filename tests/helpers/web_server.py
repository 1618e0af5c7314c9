"""A web server of this machine's that serves a folder by ranges, counts what it is asked, and fails where told to."""
import contextlib
import http.server
import pathlib
import socket
import struct
import threading
import time
from collections import deque

STALL_SECONDS = 60  # longer than any time-out of a test


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer(with_content=False)

    def do_GET(self):
        self._answer(with_content=True)

    def _answer(self, with_content):
        server = self.server
        path = server.folder / self.path.lstrip("/")
        with server.lock:
            server.requests.append((self.command, self.path, self.headers.get("Range")))
            fault = server.faults.popleft() if server.faults and server.matches(self.path) else server.always
        time.sleep(server.delay)
        if fault == "stall":
            server.ended.wait(STALL_SECONDS)
            fault = "reset"
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if isinstance(fault, int):
            self._send(fault, {}, b"", 0, with_content)
            return
        if not path.is_file():
            self._send(404, {}, b"", 0, with_content)
            return
        content = path.read_bytes()
        size, status, headers = len(content), 200, {"Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted and server.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(size, int(last or size - 1) + 1)
            status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{size}"
            content = content[start:end]
        self._send(status, headers, content, len(content) // 2 if fault == "short" else len(content), with_content)

    def _send(self, status, headers, content, sent, with_content):
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_content:
                self.wfile.write(content[:sent])
                if sent < len(content):
                    self.wfile.flush()
                    self.close_connection = True

    def log_message(self, *_):
        pass


class WebServer(http.server.ThreadingHTTPServer):
    """Serves `folder` at `url` while its `with` block runs.

    requests: (method, path, range) of each. delay: seconds before each answer. faults: what the next requests of paths
    that end in `failing` get: a status, "reset", "short" (half of the body) or "stall"; "" for the file. always: what
    all others get. ranges: whether it serves any, or whole files only.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = pathlib.Path(folder)
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.requests, self.faults, self.always, self.failing = [], deque(), "", ""
        self.delay, self.ranges = 0.0, True
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def matches(self, path):
        return path.endswith(self.failing)

    def gets(self, suffix=""):
        """How many GETs there were of paths with this end."""
        with self.lock:
            return sum(method == "GET" and path.endswith(suffix) for method, path, _ in self.requests)

    def handle_error(self, *_):  # clients of tests go away as they like
        pass

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.shutdown()
        self.server_close()
        self._thread.join(30)
