"""What is attached to an image, attached to its successor: the same image, annotated.

A manifest that refers to another one says so in its own bytes, and so becomes another one, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.document import parse_object, writable
from .attached import Attached, Tagged
from .referrer import Part, Referrer, fallback_tag
from .source import read_document


def moved(attached: Attached, old: Digest, new: Descriptor) -> tuple[Attached, Sequence[Digest]]:
    """Return what refers to `new` from now on, and what can only be about `old`.

    Artifacts that have tags of their own are moved, as buildpacks declare them. A signature
    cannot be: it is made for a digest.

    Raises:
        NotFound, InvalidContent: an artifact cannot be read.
    """
    tags: dict[Digest, list[Tagged]] = {}
    for one in attached.tagged:
        tags.setdefault(one.what.root.digest, []).append(one)
    referrers: list[Referrer] = []
    tagged: list[Tagged] = []
    left: list[Digest] = []
    for referrer in attached.referrers.get(old, ()):
        names = tags.pop(referrer.root.digest, [])
        if not names or referrer.root.digest in attached.referrers:
            left.append(referrer.root.digest)
            continue
        successor = _referring(referrer, new)
        referrers.append(successor)
        tagged += [Tagged(one.tag, successor, one.path) for one in names]
    signatures = (digest for digest, ones in tags.items() if _is_about(ones, old))
    return Attached({new.digest: referrers} if referrers else {}, tagged), [*left, *signatures]


def _referring(referrer: Referrer, subject: Descriptor) -> Referrer:
    """Return an artifact that refers to `subject`, and is else the same."""
    root = referrer.root
    what = f"manifest {root.digest}"
    document = writable(parse_object(read_document(referrer.source, root), what), what)
    described = Descriptor(subject.media_type, subject.digest, subject.size).to_document()
    changed = {**document, "subject": described}
    raw = json.dumps(changed, separators=(",", ":"), ensure_ascii=False).encode()
    digest = Digest.of(raw, root.digest.algorithm)
    successor = Descriptor(
        root.media_type, digest, len(raw), root.annotations, root.platform, _kind(root)
    )
    return Referrer(successor, Part(referrer.source, successor, raw))


def _kind(root: Descriptor) -> dict[str, object]:
    kind = root.given.get("artifactType")
    return {} if kind is None else {"artifactType": kind}


def _is_about(tagged: Sequence[Tagged], subject: Digest) -> bool:
    return any(one.tag.startswith(f"{fallback_tag(subject)}.") for one in tagged)
