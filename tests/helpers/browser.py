"""Headless Chromium, driven through its pipe as a user would drive it: files chosen, clicks."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page:
    """A tab. Calls are those of the DevTools protocol; ``said`` is what its console says."""

    def __init__(self, write, read):
        self._write, self._read = write, read
        self._number = 0
        self._session = None
        self.said: list[str] = []

    def call(self, method: str, **parameters) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict:
        text = bytearray()
        while (byte := self._read.read(1)) != b"\0":
            assert byte, "the browser is gone"
            text += byte
        message = json.loads(text)
        if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(message["params"])[:500])
        if message.get("method") == "Runtime.consoleAPICalled":
            self.said.append(str([a.get("value") for a in message["params"]["args"]])[:500])
        return message

    def open(self, address: str) -> None:
        found = self.call("Target.createTarget", url="about:blank")
        attached = self.call("Target.attachToTarget", targetId=found["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Page", "DOM"):
            self.call(f"{domain}.enable")
        self.resize(1000)
        self.call("Page.navigate", url=address)

    def resize(self, width: int) -> None:
        size = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def value(self, expression: str):
        """What JavaScript gives, as JSON has it."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = 60):
        """The first value that is true."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, (expression, self.said)
            time.sleep(0.05)
        return found

    def choose(self, selector: str, file: Path) -> None:
        """A file, in an input for files."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


@contextmanager
def browser(profile: Path):
    """A ``Page`` of a browser of its own."""
    ours, theirs = os.pipe(), os.pipe()

    def pipes():  # the protocol reads 3 and writes 4
        read, write = os.dup(ours[0]), os.dup(theirs[1])
        os.dup2(read, 3)
        os.dup2(write, 4)

    process = subprocess.Popen(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        ],
        close_fds=False,
        preexec_fn=pipes,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(ours[0])
    os.close(theirs[1])
    write, read = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
    try:
        yield Page(write, read)
    finally:
        process.kill()
        process.wait()
        write.close()
        read.close()


@contextmanager
def served(folder: Path):
    """The address at which ``python -m http.server`` serves a folder."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process.stdout.readline().split("(")[1].split(")")[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
