# The trainer, on CPUs or on an NVIDIA GPU. torch installs its own CUDA libraries, and the gates of a bundle are
# checked on the CPU. Build it from the root of the repository:
#   docker build -f deploy/trainer.Dockerfile -t topb-trainer:0.1.0 .

FROM python:3.12.13-slim-bookworm AS build
WORKDIR /src
COPY deploy/constraints.txt /constraints.txt
# This also constrains the build of the wheel.
ENV PIP_CONSTRAINT=/constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY clients clients
COPY scorer scorer
COPY trainer trainer
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/topb \
    && pip --python /opt/topb/bin/python install "$(echo /wheels/topb-*.whl)[trainer,timm]"

FROM python:3.12.13-slim-bookworm
LABEL org.opencontainers.image.title="topb trainer" \
      org.opencontainers.image.licenses="Apache-2.0"
# The home is /tmp, because it is the only writable directory if the root file system is read-only.
RUN groupadd --gid 10001 topb \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin topb
COPY --from=build /opt/topb /opt/topb
ENV PATH=/opt/topb/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
STOPSIGNAL SIGTERM
# The container runs to completion and serves no requests, so there is no health to check.
HEALTHCHECK NONE
ENTRYPOINT ["topb"]
CMD ["train", "--help"]
