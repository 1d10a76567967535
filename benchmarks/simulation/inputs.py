"""The numbers that everything follows from: what was measured here, what is assumed, what it costs.

Sizes are bytes, times seconds, prices US dollars. Change a number, and run it again.
"""

from __future__ import annotations

from dataclasses import dataclass

KB, MB, GB, TB = 10**3, 10**6, 10**9, 10**12
DAY, MONTH = 86_400.0, 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What one machine took: two cores of an AMD EPYC, ext4, docker-registry 2.8.

    Attributes:
        inodes: of one name with its three blobs; `testing/population.py` at 100,000 names.
        metadata: bytes on disk of the same, small files and directories.
        index: bytes of index.sqlite for one name, a quarter of them published.
        collect, collect_memory: of `gc --dry-run` for one name, inodes in memory.
        usage_memory: of `du` for one name.
        verify_blob: processor time of `verify` for one blob, however small.
        verify_rate: bytes a second that one core re-hashes with BLAKE3 from a fast disk.
        push_requests: of a next build that changed one layer of 15, and its manifest and config.
        first_push_requests: of an image of which the registry has nothing.
        pull_requests: of the next build, where the one before is.
        first_pull_requests: of an image of 15 layers, of which nothing is there.
        request: processor time of the registry for a request that moves no layer.
        inode: bytes of memory of an inode of ext4 and its name, as /proc/slabinfo has them.
    """

    inodes: float = 8.0
    metadata: float = 32 * KB
    index: float = 777.0
    collect: float = 0.16e-3
    collect_memory: float = 1.1 * KB
    usage_memory: float = 2.1 * KB
    verify_blob: float = 0.8e-3
    verify_rate: float = 1.0 * GB
    push_requests: int = 9
    first_push_requests: int = 50
    pull_requests: int = 3
    first_pull_requests: int = 17
    request: float = 2e-3
    inode: float = 1320.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """A company's images: assumed, in the shape of buildpacks' Java images (benchmarks/README.md).

    Attributes:
        images: manifests that are kept.
        applications: repositories, each with its dependencies.
        stacks: lines of run images.
        run_versions: of each line that images still use.
        dependency_versions: of an application, among the images kept.
        run, runtime, dependencies, constant, own: compressed bytes of the layers of the run
            image, of the JRE that a stack shares, of an application's jars, of what its builds
            have in common, and of what each build changes.
        documents: bytes of a manifest and a config.
        layers: of an image.
        kept: seconds that an image is kept.
        peak: how many times the mean the busiest hour has.
        starts: machines that pull each image.
        popularity: exponent of Zipf's law, of applications and of stacks.
        nodes: machines that build and run.
        disk: bytes of each for its store.
    """

    images: int = 10_000_000
    applications: int = 500_000
    stacks: int = 20
    run_versions: int = 100
    dependency_versions: int = 2
    run: float = 72.2 * MB
    runtime: float = 46.9 * MB
    dependencies: float = 36.2 * MB
    constant: float = 4.2 * MB
    own: float = 0.56 * MB
    documents: float = 9 * KB
    layers: int = 15
    kept: float = 90 * DAY
    peak: float = 4.0
    starts: float = 5.0
    popularity: float = 0.9
    nodes: int = 100
    disk: float = 200 * GB

    @property
    def whole(self) -> float:
        """The bytes of one image, with nothing shared."""
        above = self.dependencies + self.constant + self.own + self.documents
        return self.run + self.runtime + above

    @property
    def builds(self) -> float:
        """Builds a second, in the mean: as many as are forgotten."""
        return self.images / self.kept


@dataclass(frozen=True, slots=True)
class Tier:
    """The registry and what is below it: assumed.

    Attributes:
        servers: requests that all registry processes together work on at once: their cores.
        link: bytes a second of one node's network.
        objects: of the object store, for a pushed blob: its content and its links.
        writes: requests to the object store that cost as writes, for a pushed blob: begin, part,
            end, copy to its name, and links.
        shards: registries that the namespaces are shared out to.
        listed: names that the object store lists in one request, and `listing` seconds it takes.
    """

    servers: int = 8
    link: float = 1.25 * GB
    objects: float = 2.0
    writes: float = 8.0
    shards: int = 16
    listed: int = 1000
    listing: float = 0.1


@dataclass(frozen=True, slots=True)
class Prices:
    """What a month costs: list prices of a large cloud, to be replaced by yours.

    Attributes:
        stored: of a GB in the object store for a month.
        write, read: of a request to it.
        disk: of a GB of a node's disk for a month.
        core: of one core with 4 GB of memory for a month.
    """

    stored: float = 0.023
    write: float = 5e-6
    read: float = 4e-7
    disk: float = 0.08
    core: float = 35.0
