# One file, a target per service: docker build --target scheduler .
# A site with GPUs builds with --build-arg EXTRAS=,cuda12 (CuPy with NVIDIA's own wheels; the host needs only the container toolkit).
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /src
COPY bootstrap.txt ./
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes -r bootstrap.txt
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
COPY services ./services

FROM build AS build-scheduler
RUN python3 -m venv /opt/venv && /opt/build/bin/uv pip install --no-sources --system-certs --python /opt/venv/bin/python -c constraints.txt . ./services/scheduler

FROM build AS build-ingest
RUN python3 -m venv /opt/venv && /opt/build/bin/uv pip install --no-sources --system-certs --python /opt/venv/bin/python -c constraints.txt . ./services/ingest

FROM build AS build-web
RUN python3 -m venv /opt/venv && /opt/build/bin/uv pip install --no-sources --system-certs --python /opt/venv/bin/python -c constraints.txt . ./services/web

FROM build AS build-preprocess
ARG EXTRAS=
RUN python3 -m venv /opt/venv && /opt/build/bin/uv pip install --no-sources --system-certs --python /opt/venv/bin/python -c constraints.txt ".[compute,agent${EXTRAS}]" ./services/preprocess

FROM build AS build-reconstruct
ARG EXTRAS=
RUN python3 -m venv /opt/venv && /opt/build/bin/uv pip install --no-sources --system-certs --python /opt/venv/bin/python -c constraints.txt ".[compute,agent${EXTRAS}]" ./services/reconstruct

FROM python:3.11-slim-bookworm AS runtime
RUN groupadd --gid 10001 frazil && useradd --uid 10001 --gid frazil --home-dir /home/frazil --create-home frazil \
 && mkdir -p /data /run/frazil && chown frazil:frazil /data /run/frazil
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/tmp/numba
WORKDIR /data
USER frazil

FROM runtime AS scheduler
COPY --from=build-scheduler /opt/venv /opt/venv
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=6 CMD ["python3", "-m", "frazil.rpc.probe", "127.0.0.1:50051"]
CMD ["frazil-scheduler", "--data-dir", "/data", "--address", "0.0.0.0:50051"]

FROM runtime AS ingest
COPY --from=build-ingest /opt/venv /opt/venv
CMD ["frazil-ingest"]

FROM runtime AS web
COPY --from=build-web /opt/venv /opt/venv
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=6 CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
CMD ["frazil-web", "--address", "0.0.0.0:8080"]

FROM runtime AS preprocess
COPY --from=build-preprocess /opt/venv /opt/venv
CMD ["frazil-agent", "--programs", "frazil-preprocess", "--lock-dir", "/run/frazil/gpu"]

FROM runtime AS reconstruct
COPY --from=build-reconstruct /opt/venv /opt/venv
CMD ["frazil-agent", "--programs", "frazil-reconstruct", "--lock-dir", "/run/frazil/gpu"]
