"""A real browser without a window: Chromium, spoken to over pipes by the DevTools protocol."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
# Of one answer, in seconds: the machine may be busy.
PATIENCE = 60
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


@contextmanager
def browser(folder: Path) -> Iterator["Browser"]:
    """A browser whose settings stand in this folder; ended at the end."""
    ours, theirs = os.pipe(), os.pipe()
    command = f'exec "$0" "$@" 3<&{ours[0]} 4>&{theirs[1]}'
    flags = (*FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder}")
    started = subprocess.Popen(
        ["bash", "-c", command, str(CHROMIUM), *flags, "about:blank"],
        pass_fds=(ours[0], theirs[1]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(ours[0])
    os.close(theirs[1])
    try:
        yield Browser(ours[1], theirs[0])
    finally:
        started.terminate()
        started.wait(PATIENCE)
        os.close(ours[1])
        os.close(theirs[0])


class Browser:
    """Sends commands and keeps what the pages report."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._left, self._number = to, back, b"", 0
        self.events: list[Mapping[str, Any]] = []

    def send(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """The answer to one command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self._number:
                assert "error" not in found, (method, found["error"])
                return found["result"]
            self.events.append(found)

    def _message(self) -> Any:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._left:
            assert select.select([self._back], [], [], max(0, end - time.monotonic()))[0], "the browser does not answer"
            read = os.read(self._back, 1 << 20)
            assert read, "the browser has ended"
            self._left += read
        one, _, self._left = self._left.partition(b"\0")
        return json.loads(one)

    def page(self, path: Path, width: int, *, dark: bool = False, script: bool = True, print_: bool = False) -> "Page":
        """A file in a window of this width, once it is drawn."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.send(f"{domain}.enable")
        page.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.send("Emulation.setEmulatedMedia", media="print" if print_ else "screen", features=[scheme])
        page.send("Emulation.setScriptExecutionDisabled", value=not script)
        page.send("Page.navigate", url=path.as_uri())
        page.until("document.readyState === 'complete'")
        if script:
            page.until(
                "document.querySelectorAll('figure.matrix').length === document.querySelectorAll('.said').length"
            )
        return page


class Page:
    """One page."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target

    def send(self, method: str, **parameters: Any) -> Any:
        """The answer to one command to it."""
        return self._browser.send(method, self._session, **parameters)

    def value(self, expression: str) -> Any:
        """What an expression is there, as JSON."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until it holds."""
        end = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.02)

    def complaints(self) -> list[str]:
        """What its console and its network report, but for the file itself and pictures within it."""
        mine = [each for each in self._browser.events if each.get("sessionId") == self._session]
        loud = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        said = [json.dumps(each["params"]) for each in mine if each["method"] in loud]
        asked = [each["params"]["request"]["url"] for each in mine if each["method"] == "Network.requestWillBeSent"]
        return [*said, *(url for url in asked if not url.startswith(("file:", "data:image/png")))]

    def point(self, x: float, y: float, kind: str = "mouseMoved", **more: Any) -> None:
        """The mouse at this place of the window."""
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def press(self, key: str) -> None:
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key)

    def screenshot(self, path: Path) -> None:
        """All of it as a picture, for people."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """Its window."""
        self._browser.send("Target.closeTarget", targetId=self._target)
