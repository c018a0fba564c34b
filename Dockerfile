# syntax=docker/dockerfile:1
# A service of one model, on a CPU: docker build -t plait . && docker compose up
#
# PyPI's torch brings CUDA, which takes gigabytes. To leave it out, give the address of PyTorch's index of
# CPU wheels: docker build --build-arg TORCH_INDEX=... -t plait .

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /venv

# torch first: it is large, and changes less often than plait
COPY constraints.txt .
RUN grep "^torch==" constraints.txt > torch.txt \
    && /venv/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r torch.txt

COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /venv/bin/pip install --constraint constraints.txt ".[serve,pretrained,retrieval]"


FROM python:${PYTHON}-slim
# LightGBM is linked with libgomp; each base image has its own version of it
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /venv /venv

# Nothing is written but below /tmp, so that the root can be read-only.
ENV PATH=/venv/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["plait"]
CMD ["serve", "/model", "--host", "0.0.0.0"]
