"""What a terminal shows of copies that go on: lines of text that fit into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..publish.sink import Action
from .output import human
from .track import Running, Track

_BAR = 30  # columns of a bar, where there is room
_REST = 64  # columns that the rest of a line with a rate needs
_SMALLEST = 5
_COUNTED = (Action.SENT, Action.PRESENT, Action.MOUNTED, Action.ABSENT)
_GREEN, _PLAIN = "\x1b[32m", "\x1b[39m"


@dataclass(frozen=True, slots=True)
class Screen:
    """What can be shown.

    Attributes:
        columns: characters of a line.
        rows: lines.
        unicode: whether it shows more than ASCII.
        colours: whether it wants colours.
    """

    columns: int
    rows: int
    unicode: bool
    colours: bool


def frame(tracks: Sequence[Track], screen: Screen, now: float) -> list[str]:
    """Return the lines to show now; none is longer than the screen, colours not counted.

    Copies come first, blobs where rows are left.
    """
    rows = max(1, screen.rows - 1)  # the cursor stands on the line after the last one
    left = max(0, rows - 2 * len(tracks)) // max(1, len(tracks))
    lines: list[str] = []
    for track in tracks:
        lines.append(_cut("  ".join(filter(None, (track.title, _counts(track)))), screen))
        lines.append(_bar_line("", _whole(track, now), track.done, track.total, screen))
        for blob in _under_way(track)[:left]:
            size = blob.descriptor.size
            name, text = blob.descriptor.digest.encoded[:12], _share(blob.done, size)
            lines.append(_bar_line(name, text, blob.done, size, screen))
    return lines[:rows]


def _counts(track: Track) -> str:
    if track.noun and track.total:
        return track.what
    actions = (action for action in _COUNTED if track.counts[action])
    return ", ".join(f"{track.counts[action]} {action}" for action in actions)


def _whole(track: Track, now: float) -> str:
    if not track.total:
        return f"{track.what}…"
    if track.noun:
        return _steps(track, now)
    parts = [_share(track.done, track.total)]
    rate = track.rate(now)
    if track.what == "done":
        parts.append("done")
    elif track.is_still(now):
        parts.append(f"{track.what}…")
    elif rate and track.done < track.total:
        parts.append(f"{human(round(rate))}/s")
        parts.append(f"{_clock((track.total - track.done) / rate)} left")
    return "  ".join(parts)


def _steps(track: Track, now: float) -> str:
    """Tell of few things that take long: only all that were done tell how long others take."""
    text = f"{track.done} of {track.total} {track.noun}"
    if not 0 < track.done < track.total:
        return text
    seconds = (track.moved - track.began) / track.done * (track.total - track.done)
    return f"{text}  {_clock(max(0.0, seconds - (now - track.moved)))} left"


def _share(done: int, total: int) -> str:
    some, unit = human(done).split()
    whole = human(total)
    return f"{some} of {whole}" if whole.endswith(f" {unit}") else f"{some} {unit} of {whole}"


def _under_way(track: Track) -> list[Running]:
    return [blob for blob in track.running.values() if blob.done < blob.descriptor.size]


def _bar_line(name: str, text: str, done: int, total: int, screen: Screen) -> str:
    """Return a line with a bar between name and text, as far as there is room for one."""
    if not total:
        return _cut(f"  {text}", screen)
    share = min(1.0, done / total)
    before, after = f"  {name:12}  ", f" {share:4.0%}  {text}"
    room = min(_BAR, screen.columns - _REST, _width(screen) - len(before) - len(after))
    if room >= _SMALLEST:
        return before + _bar(share, room, screen) + after
    return _cut(before.rstrip() + after, screen)


def _width(screen: Screen) -> int:
    return screen.columns - 1  # the last column would move the cursor on


def _cut(text: str, screen: Screen) -> str:
    """Return text that fits, without its middle where it is too long."""
    width = _width(screen)
    if len(text) <= width:
        return text
    tail = width // 2
    dots = "…" if screen.unicode else "~"
    return text[: max(0, width - tail - 1)] + dots + text[len(text) - tail :]


def _bar(share: float, columns: int, screen: Screen) -> str:
    full, empty = ("━", "─") if screen.unicode else ("#", "-")
    at = round(share * columns)
    done = full * at
    return (f"{_GREEN}{done}{_PLAIN}" if screen.colours and done else done) + empty * (columns - at)


def _clock(seconds: float) -> str:
    """Return a time for reading.

    >>> _clock(7.2), _clock(75), _clock(3700)
    ('0:07', '1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
