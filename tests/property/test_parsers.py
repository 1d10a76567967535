"""Every parser of bytes from outside: accepted, or refused with the documented error, soon."""

import contextlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocistow.oci.document import MAX_DOCUMENT, MAX_TABLE
from ocistow.testing.mutations import Form, damaged, dumped, worst

from .parsers import PARSERS, REFUSED

EXAMPLES = os.environ.get("OCISTOW_FUZZ")  # of each parser; and then all worst documents, too
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
SECONDS = 10.0  # of a processor for a document at its bound; a good parser needs one
MEMORY = 200 << 20  # bytes likewise
LIMITS: dict[Form, int] = {"json": MAX_DOCUMENT, "toml": MAX_TABLE, "bytes": MAX_DOCUMENT}


@pytest.mark.parametrize("name", sorted(PARSERS.keys() - REFUSED))
def test_the_sample_is_accepted(name: str) -> None:
    parser = PARSERS[name]
    parser.parse(dumped(parser.sample, parser.form))


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=int(EXAMPLES or 25), suppress_health_check=SLOW)
@given(data=st.data())
def test_any_bytes_are_accepted_or_refused(name: str, data: st.DataObject) -> None:
    parser = PARSERS[name]
    refusal = ""
    try:
        parser.parse(data.draw(damaged(parser.sample, parser.form)))
    except parser.refusals as error:
        refusal = str(error)
    assert len(refusal) < 8000


@pytest.mark.parametrize("name", PARSERS if EXAMPLES else [n for n in PARSERS if PARSERS[n].first])
def test_the_worst_documents_cost_little(name: str) -> None:
    parser = PARSERS[name]
    for kind, raw in worst(parser.sample, parser.form, parser.limit or LIMITS[parser.form]):
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        begun = time.process_time()
        with contextlib.suppress(*parser.refusals):
            parser.parse(raw)
        seconds, most = time.process_time() - begun, memory("VmHWM") - before
        assert seconds < SECONDS, kind
        assert most < MEMORY, kind


def memory(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise LookupError(field)
