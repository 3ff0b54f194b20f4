# The API and the page alone, without torch: workers attribute, over the queue in Redis.
#
#   docker build --file docker/api.Dockerfile --tag whence-api .
#
# docker-compose.yml and docker/k8s show it with what it needs beside it.
FROM python:3.11-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
WORKDIR /source
RUN python -m venv /opt/whence
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/whence/bin/pip install --constraint constraints.txt '.[api,otel]'

FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin whence \
    && install --directory --owner=whence --group=whence /keys
COPY --from=build /opt/whence /opt/whence
ENV PATH=/opt/whence/bin:$PATH PYTHONUNBUFFERED=1 WHENCE_QUEUE=true WHENCE_INDEX_DIR=/index
USER 10001:10001
WORKDIR /home/whence
EXPOSE 8000
# Readiness means that a worker is there to answer.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["whence"]
CMD ["serve", "--keys", "/keys/keys.json", "--host", "0.0.0.0", "--port", "8000"]
