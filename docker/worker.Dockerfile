# Everything in one process, on an NVIDIA GPU; with `worker /index` a worker of the queue.
# PyPI's CUDA build of torch, and FAISS built for CUDA 12.
#
#   docker build --file docker/worker.Dockerfile --tag whence-worker .
#   docker run --rm --gpus all -p 127.0.0.1:8000:8000 \
#     -v ./index:/index:ro -v ./model:/model:ro -v ./keys:/keys:ro whence-worker
FROM nvidia/cuda:12.6.3-base-ubuntu24.04 AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008 # the release pins Python 3.12; its patch versions carry security fixes
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
RUN python3 -m venv /opt/whence
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/whence/bin/pip install --constraint constraints.txt torch
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/whence/bin/pip install --constraint constraints.txt '.[api,service,gpu]'

FROM nvidia/cuda:12.6.3-base-ubuntu24.04

ENV DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin whence \
    && install --directory --owner=whence --group=whence /index /keys
COPY --from=build /opt/whence /opt/whence
ENV PATH=/opt/whence/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
USER 10001:10001
WORKDIR /home/whence
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["whence"]
CMD ["serve", "/index", "--model", "/model", "--keys", "/keys/keys.json", "--host", "0.0.0.0", "--port", "8000", "--device", "cuda"]
