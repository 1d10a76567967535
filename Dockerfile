# ocistow, and its phases as /cnb/lifecycle/*. Where no registry can be asked: `make image`.
#
#     docker build --build-arg BASE=docker.io/library/debian:bookworm-slim@sha256:DIGEST -t ocistow .
#
# BASE has no default: which digest is trusted is for whoever builds to say.
ARG BASE

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        gcc libc6-dev libfuse3-dev pkg-config python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
ARG SOURCE_DATE_EPOCH
RUN python3 -m venv /opt/ocistow \
    && /opt/ocistow/bin/pip install --no-cache-dir /src \
    && /opt/ocistow/bin/ocistow phase install /cnb/lifecycle \
    && /opt/ocistow/bin/python -m ocistow.cli.components >/cnb/lifecycle/lifecycle.sbom.cdx.json

FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates fuse3 python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 cnb \
    && useradd --uid 1000 --gid cnb --create-home cnb \
    && install --directory --owner=cnb --group=cnb /var/lib/ocistow /oci
COPY --from=build /opt/ocistow /opt/ocistow
COPY --from=build /cnb /cnb
RUN ln -s /opt/ocistow/bin/ocistow /opt/ocistow/bin/mount.ocistow \
        /opt/ocistow/bin/mount.fuse.ocistow /usr/local/bin/ \
    && ln -s /opt/ocistow/bin/mount.ocistow /opt/ocistow/bin/mount.fuse.ocistow /sbin/

ENV PATH=/cnb/lifecycle:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    CNB_USER_ID=1000 \
    CNB_GROUP_ID=1000 \
    OCISTOW_STORE=/var/lib/ocistow
# What a platform reads of a lifecycle
LABEL io.buildpacks.lifecycle.apis='{"buildpack":{"deprecated":[],"supported":["0.7","0.8","0.9","0.10","0.11","0.12"]},"platform":{"deprecated":[],"supported":["0.7","0.8","0.9","0.10","0.11","0.12","0.13","0.14","0.15"]}}' \
    io.buildpacks.lifecycle.version='0.1.0'
# A mount needs more: --user=0 --device=/dev/fuse --cap-add=SYS_ADMIN.
USER 1000:1000
ENTRYPOINT ["/usr/local/bin/ocistow"]
