"""Registries as the place of images.

Source: buildpacks/spec, platform.md; imgutil, remote; distribution-spec.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from http import HTTPStatus

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import InvalidContent, NotFound, OcistowError, RegistryError, RegistryUnavailable
from ...oci.manifest import Manifest, parse_manifest
from ...oci.reference import Reference
from ...publish.access import JOBS, Access
from ...publish.attached import Attached
from ...publish.copy import copy
from ...publish.distribution.credentials import ANONYMOUS
from ...publish.distribution.hosts import open_repository
from ...publish.distribution.keychain import Keychain
from ...publish.provenance import Provenance, UploadSessions
from ...publish.referrers import Sending
from ...publish.registry import RegistrySink, RegistrySource
from ...publish.sink import host_platform
from ...publish.source import Source, read_document
from ...store.store import Store
from ..images.image import Image, Saved, open_image
from ..images.staging import Staging
from .pools import keep_packed, staging_of, temporary_staging

REGISTRY_AUTH = "CNB_REGISTRY_AUTH"
INSECURE_REGISTRIES = "CNB_INSECURE_REGISTRIES"

_DENIED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


class RegistryTarget:
    """Images of any registry. Thread-safe.

    The credentials are those that `known_registries` put into `environ`, or the files that
    it names. None goes to another host than the one it was found for.
    """

    keeps_identifier = False

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        access: Access | None = None,
        jobs: int = JOBS,
        store: Store | None = None,
    ) -> None:
        """Use registries as `environ` says; a `store` keeps layers for the next time."""
        self._environ = environ
        self._store = store
        self._access = access or Access()
        self._jobs = jobs
        self._seen: dict[str, dict[Digest, tuple[str, ...]]] = {}  # blobs, by their registries

    @contextmanager
    def find(self, reference: str) -> Generator[Image | None]:
        """Yield the image for this machine's platform; None if there is none, or it is hidden.

        Raises:
            InvalidContent: what is there is no image.
            RegistryError: the registry refused, but not for want of credentials.
        """
        parsed = Reference.parse(reference)
        with open_repository(parsed, self._access, environ=self._environ) as repository:
            source = RegistrySource(repository, parsed, host_platform())
            try:
                root = source.resolve()
            except NotFound:
                yield None
                return
            except RegistryError as error:
                if error.status != HTTPStatus.UNAUTHORIZED:
                    raise _about(f'connect to repo store "{reference}"', error) from error
                yield None
                return
            identifier = f"{parsed.registry}/{parsed.repository}@{root.digest}"
            image = open_image(reference, identifier, source, root)
            self._note(parsed, (layer.blob.digest for layer in image.layers))
            yield image

    def name(self, reference: str) -> str:
        """Return the reference as it was given."""
        return reference

    def check_access(self, readable: Sequence[str], writable: Sequence[str]) -> None:
        """See whether these may be read and these written; what is absent may be read.

        Raises:
            InvalidContent: one is no reference.
            RegistryError: one may not.
        """
        for reference in filter(None, readable):
            self._check(reference, "read", push=False)
        for reference in filter(None, writable):
            self._check(reference, "read/write", push=True)

    def staging(self, reference: str) -> AbstractContextManager[Staging]:
        """Return the store's pool, or one in the directory for temporary files.

        That is gone when the block is left.
        """
        return temporary_staging() if self._store is None else nullcontext(staging_of(self._store))

    def save(self, source: Source, references: Sequence[str]) -> Saved:
        """Push the image under all its names: its blobs once, each further name alone.

        Layers that came from another repository of the registry are mounted; what the registry
        lost of an image that it has already is sent again.

        Raises:
            InvalidContent, NotFound, RegistryError, OSError: it could be given none of the names.
        """
        root = source.resolve()
        document = parse_manifest(read_document(source, root), root)
        if not isinstance(document, Manifest):
            raise InvalidContent(f"{root.digest} is not an image for one platform")
        before = {digest for seen in self._seen.values() for digest in seen}
        names: list[str] = []
        failed: list[tuple[str, str]] = []
        first: OcistowError | OSError | None = None
        served: set[tuple[str, str]] = set()
        for text in references:
            try:
                reference = Reference.parse(text)
                self._push(source, root, document, reference, served)
            except (OcistowError, OSError) as error:
                first = first or error
                failed.append((text, str(error)))
            else:
                names.append(text)
        if first is not None and not names:
            raise first
        if self._store is not None:
            new = [layer for layer in document.layers if layer.digest not in before]
            keep_packed(self._store.blobs, source, new)
        return Saved(
            tuple(names), root.digest, document.config.digest, root.size, failed=tuple(failed)
        )

    def attach(self, reference: Reference, image: Digest, attached: Attached) -> None:
        """Send what is attached to an image into a repository that has it.

        Raises:
            InvalidContent, NotFound, RegistryError, OSError: something of it was not sent.
        """
        if not (attached.referrers or attached.tagged):
            return
        place = reference.registry, reference.repository
        with open_repository(
            reference, self._access, push=True, environ=self._environ
        ) as repository:
            sending = Sending(repository, reference, Provenance(None, *place), self._jobs)
            sending.referrers([image], lambda subject: attached.referrers.get(subject, ()))
            for one in attached.tagged:
                sending.tagged(one.tag, one.what)

    def delete(self, identifier: str) -> None:
        """Delete an image that was found, by its identifier.

        Raises:
            RegistryError: many registries do not.
        """
        reference = Reference.parse(identifier)
        assert reference.digest is not None
        with open_repository(
            reference, self._access, push=True, environ=self._environ
        ) as repository:
            repository.delete_manifest(reference.digest)

    def _push(
        self,
        source: Source,
        root: Descriptor,
        document: Manifest,
        reference: Reference,
        served: set[tuple[str, str]],
    ) -> None:
        place = reference.registry, reference.repository
        with open_repository(
            reference, self._access, push=True, environ=self._environ
        ) as repository:
            if place in served and reference.digest is None:
                repository.put_manifest(reference.tag, root, document.raw)
                return
            provenance = self._provenance(reference)
            sessions = UploadSessions(self._store.uploads, *place) if self._store else None
            sink = RegistrySink(repository, reference, provenance, sessions, recheck=True)
            leases = self._store.leases if self._store else None
            copy(source, sink, jobs=self._jobs, leases=leases)
        served.add(place)
        blobs = (document.config, *document.layers)
        self._note(reference, (blob.digest for blob in blobs))

    def _provenance(self, reference: Reference) -> Provenance:
        locations = self._store.locations if self._store else None
        place = reference.registry, reference.repository
        return Provenance(locations, *place, self._elsewhere(reference))

    def _elsewhere(self, reference: Reference) -> dict[Digest, tuple[str, ...]]:
        """Return which other repositories of the registry have which blobs."""
        return {
            digest: others
            for digest, repositories in self._seen.get(reference.registry, {}).items()
            if (others := tuple(name for name in repositories if name != reference.repository))
        }

    def _note(self, reference: Reference, digests: Iterable[Digest]) -> None:
        seen = self._seen.setdefault(reference.registry, {})
        for digest in digests:
            if reference.repository not in (there := seen.get(digest, ())):
                seen[digest] = (*there, reference.repository)

    def _check(self, text: str, access: str, *, push: bool) -> None:
        what = f"failed to ensure registry {access} access to {text}"
        reference = Reference.parse(text)
        with open_repository(
            reference, self._access, push=push, environ=self._environ
        ) as repository:
            try:
                repository.has_manifest(reference.digest or reference.tag)
            except RegistryError as error:
                if not error.status or error.status in _DENIED:
                    raise _about(what, error) from error
            if not push:
                return
            try:
                repository.check_push()
            except RegistryError as error:
                raise _about(what, error) from error


def _about(what: str, error: RegistryError) -> RegistryError:
    """Return an error that says what was to be done, in the lifecycle's words."""
    facts = what, error.status, error.codes, error.message
    if isinstance(error, RegistryUnavailable):
        return RegistryUnavailable(*facts, error.retry_after)
    return RegistryError(*facts)


def known_registries(
    environ: Mapping[str, str], references: Iterable[str], insecure: Iterable[str]
) -> dict[str, str]:
    """Return an environment with what can be found out about the registries of some images.

    Credentials are looked for now, since their files may not be readable once the process has
    given its privileges up. `insecure` are beginnings of references.

    Raises:
        InvalidContent, NotFound, RegistryError, OSError: credentials cannot be read.
    """
    keychain = Keychain(Access(), environ)
    headers: dict[str, str] = {}
    for text in references:
        with suppress(InvalidContent):  # which is told where the reference is needed
            reference = Reference.parse(text)
            found = keychain.find(reference.registry, reference.repository)
            header = ANONYMOUS if found is None else found.header
            headers[f"{reference.registry}/{reference.repository}"] = header
    known = {**environ, INSECURE_REGISTRIES: ",".join(insecure)}
    if headers:
        given: dict[str, str] = json.loads(environ.get(REGISTRY_AUTH) or "{}")
        known[REGISTRY_AUTH] = json.dumps({**given, **headers})
    return known
