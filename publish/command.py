"""Other programs that are asked to do something: bounded in what they say and how long."""

from __future__ import annotations

import fcntl
import os
import selectors
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..oci.errors import InvalidContent, RegistryError, RegistryUnavailable
from ..oci.wording import plain

MAX_OUTPUT = 32 << 20  # bytes; a list of 50,000 blobs with their labels has about 15 MB
PIPE_SIZE = 1 << 20  # bytes; the default of 64 KiB makes both sides wait for each other
_STEP = 64 << 10  # bytes read at a time of what a program says


@dataclass(frozen=True, slots=True)
class Command:
    """A program and the arguments that every use of it begins with.

    Attributes:
        peer: who is asked by it, for messages.
        environment: variables besides those of this process.
        timeout: seconds in which it has to say, take or end something.
        directory: where it runs; None means where this process does.
    """

    arguments: tuple[str, ...]
    peer: str
    timeout: float
    environment: Mapping[str, str] | None = None
    directory: Path | None = None

    def run(self, *more: str, feed: Iterable[bytes] = ()) -> bytes:
        """Run it with more arguments and `feed` as its input, and return what it says.

        Raises:
            RegistryError: it is not installed, or failed; the last line on its stderr says why.
            RegistryUnavailable: it was silent for too long, and was killed.
        """
        with self._start(more, subprocess.PIPE) as process:
            try:
                output, words = _Conversation(process, feed).hold(self.timeout)
                status = process.wait(self.timeout)
            except (TimeoutError, subprocess.TimeoutExpired):
                process.kill()
                raise self.silent() from None
            except BaseException:
                process.kill()
                raise
        if status:
            raise self.failed(words)
        return output

    def open(self, *more: str) -> Output:
        """Start it, to read what it says; the caller closes that.

        Raises:
            RegistryError: it is not installed, or failed without a word on stdout.
        """
        return Output(self, self._start(more, subprocess.DEVNULL))

    def _start(self, more: Sequence[str], stdin: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603 - a list of words, and no shell
                [*self.arguments, *more],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=self.directory,
                env={**os.environ, **(self.environment or {})},
            )
        except FileNotFoundError:
            words = f"the program {self.arguments[0]!r} is not on PATH"
            raise RegistryError(self.peer, 0, (), words) from None

    def failed(self, words: bytes) -> RegistryError:
        """Return the error that the words of the program are about."""
        lines = words.decode(errors="replace").strip().splitlines() or ["it failed"]
        return RegistryError(self.peer, 0, (), plain(lines[-1]))

    def silent(self) -> RegistryUnavailable:
        """Return the error that it said nothing for too long."""
        return RegistryUnavailable(self.peer, 0, (), "no answer came in time")


class Output:
    """What a program writes to stdout. Not thread-safe."""

    def __init__(self, command: Command, process: subprocess.Popen[bytes]) -> None:
        self._command = command
        self._process = process
        self._next = b""
        try:
            self._next = self._read(_STEP)
        except BaseException:
            self.close()
            raise

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none only at the end.

        Raises:
            RegistryError: the program failed.
            RegistryUnavailable: it was silent for too long.
        """
        data = self._next or self._read(size)
        self._next = data[size:]
        return data[:size]

    def close(self) -> None:
        """End the program, unless it has ended."""
        self._process.kill()
        self._process.communicate()

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._process.stdout, selectors.EVENT_READ)
                if not selector.select(self._command.timeout):
                    raise self._command.silent()
            data = os.read(self._process.stdout.fileno(), size)
            if not data and self._process.wait(self._command.timeout):
                raise self._command.failed(self._process.stderr.read(_STEP))
        except subprocess.TimeoutExpired:
            raise self._command.silent() from None
        return data


class _Conversation:
    """Feeds a program and hears it, whichever it is ready for, so that neither waits for ever."""

    def __init__(self, process: subprocess.Popen[bytes], feed: Iterable[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdin = process.stdin
        self._feed = iter(feed)
        self._left = memoryview(b"")
        self._heard = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
        os.set_blocking(self._stdin.fileno(), False)
        with suppress(OSError):  # more than this user's share of pipes
            fcntl.fcntl(self._stdin, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def hold(self, timeout: float) -> list[bytes]:
        """Return what it wrote to stdout and stderr, once it has closed both.

        Raises:
            TimeoutError: it did nothing for `timeout` seconds.
            InvalidContent: it said over `MAX_OUTPUT` bytes.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdin.fileno(), selectors.EVENT_WRITE)
            for file in self._heard:
                selector.register(file, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(timeout)
                if not ready:
                    raise TimeoutError
                for key, _ in ready:
                    go_on = self._hear(key.fd) if key.fd in self._heard else self._say()
                    if not go_on:
                        selector.unregister(key.fd)
                        if key.fd not in self._heard:
                            self._stdin.close()
        return [bytes(heard) for heard in self._heard.values()]

    def _say(self) -> bool:
        try:
            self._left = self._left or memoryview(next(self._feed))
            self._left = self._left[os.write(self._stdin.fileno(), self._left) :]
        except (StopIteration, BrokenPipeError):  # its own words say why it hears no more
            return False
        return True

    def _hear(self, file: int) -> bool:
        data = os.read(file, _STEP)
        self._heard[file] += data
        if len(self._heard[file]) > MAX_OUTPUT:
            raise InvalidContent(f"a program said over {MAX_OUTPUT} bytes")
        return bool(data)
