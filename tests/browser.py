"""Headless Chromium, driven by the DevTools protocol over a pipe: JSON messages that end in NUL."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_WAIT_S = 60


def find_chromium():
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One window. `events` are all that came so far, (method, params) each."""

    def __init__(self, profile):
        command, self._write = os.pipe()
        self._read, answer = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (command, answer)]
        # It reads descriptor 3 and writes 4. As root it has no sandbox.
        words = [
            *(find_chromium(), "--headless=new", "--no-sandbox", "--disable-dev-shm-usage"),
            *("--disable-gpu", "--no-first-run", "--disable-background-networking"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        ]
        script = f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *words],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (command, answer, *ends):
            os.close(end)
        self.events = []
        self._unread, self._last_id, self._session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        os.close(self._write)  # it ends when nobody commands it any more
        self._process.wait(_WAIT_S)
        os.close(self._read)

    def call(self, method, **params):
        """Send a command and return its result."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last_id:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def open(self, address):
        """Load a page, forget what came before, and wait until it is there."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        while "Page.loadEventFired" not in dict(self.events):
            self._next()

    def evaluate(self, expression):
        """Return the value of an expression, or of the promise that it is."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression):
        """Evaluate until it is true."""
        until = time.monotonic() + _WAIT_S
        while not self.evaluate(expression):
            assert time.monotonic() < until, expression

    def press(self, key):
        text = {"text": key} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def _next(self):
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._read], [], [], _WAIT_S)
            part = os.read(self._read, 1 << 20) if ready else b""
            assert part, "the browser says nothing more"
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        answer = json.loads(message)
        if "method" in answer:
            self.events.append((answer["method"], answer.get("params")))
        return answer
