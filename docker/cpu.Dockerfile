# Everything in one process, on a machine without a GPU; with `worker /index` a worker of the queue.
#
#   docker build --file docker/cpu.Dockerfile --tag whence-cpu .
#   docker run --rm -p 127.0.0.1:8000:8000 \
#     -v ./index:/index:ro -v ./model:/model:ro -v ./keys:/keys:ro whence-cpu
#
# Keys: `whence keys create --file keys/keys.json --name NAME`.
FROM python:3.11-slim-bookworm AS build

# PyPI's torch carries CUDA. `--build-arg TORCH_INDEX=` with the address of PyTorch's own index of
# CPU builds takes one of a tenth of the size.
ARG TORCH_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
WORKDIR /source
RUN python -m venv /opt/whence
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/whence/bin/pip install --constraint constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} torch
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/whence/bin/pip install --constraint constraints.txt '.[api,service,cpu]'

FROM python:3.11-slim-bookworm

# The folders are made here so that a named volume mounted on one belongs to the user of the image.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin whence \
    && install --directory --owner=whence --group=whence /index /keys
COPY --from=build /opt/whence /opt/whence
ENV PATH=/opt/whence/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
USER 10001:10001
WORKDIR /home/whence
EXPOSE 8000
# Readiness means warm: model and index loaded, one query answered.
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["whence"]
CMD ["serve", "/index", "--model", "/model", "--keys", "/keys/keys.json", "--host", "0.0.0.0", "--port", "8000"]
