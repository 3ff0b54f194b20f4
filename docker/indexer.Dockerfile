# The indexer: a corpus and a model in, an index folder out. No server, no FAISS.
#
#   docker build --file docker/indexer.Dockerfile --tag whence-indexer .
#   docker run --rm -v ./corpus:/corpus:ro -v ./model:/model:ro -v ./index:/index whence-indexer
#
# With `--build-arg TORCH_BUILD=` (empty) it takes PyPI's CUDA build, for `docker run --gpus all`.
FROM python:3.11-slim-bookworm AS build

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_BUILD=+cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
WORKDIR /source
RUN python -m venv /opt/whence
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/whence/bin/pip install --constraint constraints.txt \
    ${TORCH_BUILD:+--extra-index-url "${TORCH_INDEX}"} \
    "$(sed -n "s/^torch==.*/&${TORCH_BUILD}/p" constraints.txt)"
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
