"""A real browser for tests: headless Chromium, told what to do over a pipe by its DevTools protocol."""
import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time

import pytest

BINARY = shutil.which("chromium")
TIMEOUT_SECONDS = 60
needed = pytest.mark.skipif(BINARY is None, reason="chromium is not installed (Debian: chromium)")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
          "--remote-debugging-pipe")


class Browser:
    """One tab of a Chromium with a profile of its own, in `folder`; a context manager, which leaves no process behind.

    requests: the addresses of all that pages asked for, but for data: URIs. violations: what their policy stopped.
    """

    def __init__(self, folder):
        self._folder = folder
        self.requests, self.violations = [], []

    def __enter__(self):
        # The protocol is spoken over the descriptors 3 and 4.
        command = ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1', "sh", BINARY, *_FLAGS,
                   f"--user-data-dir={self._folder / 'profile'}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                                         start_new_session=True, env=os.environ | {"HOME": str(self._folder)})
        self._received, self._number, self._session = b"", 0, None
        try:
            tab = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                self._call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def open(self, path, *, width, height=900):
        """Shows a file in a window of this many pixels; returns when all of it is loaded."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._loaded = False
        self._call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._receive()

    def evaluate(self, script):
        """What a script gives, as JSON has it. It runs from outside of the page, whatever the page's policy."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self):
        """The whole page as a PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def _call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            pass
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _receive(self):
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))
            piece = os.read(self._process.stdout.fileno(), 2**16) if ready else b""
            assert piece, "Chromium has ended, or does not answer"
            self._received += piece
        text, _, self._received = self._received.partition(b"\0")
        message = json.loads(text)
        self._note(message.get("method"), message.get("params"))
        return message

    def _note(self, event, parameters):
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith("data:"):
            self.requests.append(parameters["request"]["url"])
        elif event == "Log.entryAdded" and "Content Security Policy" in parameters["entry"]["text"]:
            self.violations.append(parameters["entry"]["text"])
