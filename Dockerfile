# The operator's image. `make image-check` carries out these very lines without a registry.
#
# Pin the base by digest: ask your registry for the tag's digest (docker buildx imagetools inspect <image>) and
# build with --build-arg PYTHON_IMAGE=<image>@sha256:…. No digest stands here, because none could be looked up
# where this was written. The locks were made with Python 3.11, so keep that minor version.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# The operator's environment has no pip and no build tools; those stay in this stage.
RUN python -m venv /build/tools && python -m venv --without-pip /opt/pilot-identity
COPY requirements-build.lock requirements.lock /build/
RUN /build/tools/bin/pip install --quiet --require-hashes --only-binary=:all: -r /build/requirements-build.lock
RUN /build/tools/bin/pip --python /opt/pilot-identity/bin/python install --quiet --require-hashes \
    --only-binary=:all: -r /build/requirements.lock
COPY pyproject.toml LICENSE README.md /build/
COPY operator /build/operator
# All that the wheel needs is there by now.
RUN --network=none /build/tools/bin/pip wheel --quiet --no-deps --no-index --no-build-isolation \
    --wheel-dir /build/dist /build
# pip compiles what it installs, so that nothing is left to write at run time.
RUN --network=none /build/tools/bin/pip --python /opt/pilot-identity/bin/python install --quiet --no-deps \
    --no-index /build/dist/pilot_identity-*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="pilot-identity" \
      org.opencontainers.image.description="Identities, short-lived task credentials and a verifiable audit trail for AI and automation pilots" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/pilot-identity /opt/pilot-identity
ENV PATH=/opt/pilot-identity/bin:${PATH} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Nobody: owns nothing in the image, and the root file system may be read-only.
USER 65532:65532
WORKDIR /
EXPOSE 8080
ENTRYPOINT ["/opt/pilot-identity/bin/python", "-m", "pilot_identity"]
CMD ["--help"]
