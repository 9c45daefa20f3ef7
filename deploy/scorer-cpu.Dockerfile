# The scorer on CPUs. Build it from the root of the repository:
#   docker build -f deploy/scorer-cpu.Dockerfile -t topb-scorer-cpu:0.1.0 .

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
    && pip --python /opt/topb/bin/python install "$(echo /wheels/topb-*.whl)[scorer,postgresql]"

FROM python:3.12.13-slim-bookworm
LABEL org.opencontainers.image.title="topb scorer (CPU)" \
      org.opencontainers.image.licenses="Apache-2.0"
# The home is /tmp, because /tmp and /state are the only writable directories if the root file system is read-only.
# A volume that Docker creates at /state gets the owner of this directory.
RUN groupadd --gid 10001 topb \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin topb \
    && install --directory --owner=10001 --group=10001 /state
VOLUME /state
COPY --from=build /opt/topb /opt/topb
COPY deploy/healthcheck.py /opt/topb/healthcheck.py
ENV PATH=/opt/topb/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/opt/topb/healthcheck.py", "localhost:50051"]
ENTRYPOINT ["topb"]
CMD ["serve", "--models", "/models", "--listen", "0.0.0.0:50051", "--allow-root", "/data", "--state", "/state"]
