# The indexer: a corpus and a model in, an index folder out. No server, no FAISS.
#
#   docker build --file docker/indexer.Dockerfile --tag whence-indexer .
#   docker run --rm -v ./corpus:/corpus:ro -v ./model:/model:ro -v ./index:/index whence-indexer
#
# PyPI's torch carries CUDA, for `docker run --gpus all`. `--build-arg TORCH_INDEX=` with the address
# of PyTorch's own index of CPU builds takes one of a tenth of the size.
FROM python:3.11-slim-bookworm AS build

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
    /opt/whence/bin/pip install --constraint constraints.txt '.[indexer]'

FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin whence \
    && install --directory --owner=whence --group=whence /index
COPY --from=build /opt/whence /opt/whence
ENV PATH=/opt/whence/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /home/whence
ENTRYPOINT ["whence"]
CMD ["index", "/corpus", "--model", "/model", "--out", "/index"]
