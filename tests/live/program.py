"""The program under test as a service: what it says on standard output, line by line, while it runs."""

import json
import signal
import subprocess

from card import until

LOADING = 60.0  # seconds that a bundle may take to load on a busy machine


class Service:
    """One `streamer run ... --json`, whose standard output and standard error go into files."""

    def __init__(self, start, folder, arguments):
        """`start(*arguments, **options)` gives a `Popen`."""
        folder.mkdir()
        self.out, self.err = folder / "out.jsonl", folder / "err.txt"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = start(*arguments, "--json", stdout=out, stderr=err)

    @property
    def said(self):
        """Everything on standard output so far, parsed."""
        text = self.out.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    @property
    def status(self):
        """The latest status, or an empty one."""
        found = [each for each in self.said if each.get("event") == "status"]
        return found[-1] if found else {}

    def until(self, true, what, patience=LOADING):
        """Wait until `true(status)` holds for the latest status; gives that. The process must live on meanwhile."""

        def look():
            assert self.process.poll() is None, f"it ended ({self.process.returncode}): {self.err.read_text()}"
            status = self.status
            return status if status and true(status) else None

        return until(look, what, patience)

    def running(self):
        """Wait until it has loaded, and sound goes through."""
        return self.until(lambda status: status["phase"] == "running" and status["gauges"], "the program to run")

    def stop(self, number=signal.SIGINT):
        """End it with a signal: its exit code, and the summary if it gave one."""
        self.process.send_signal(number)
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"it does not end on {number!r}") from error
        last = self.said[-1:]
        return code, last[0] if last and last[0].get("event") == "summary" else None
