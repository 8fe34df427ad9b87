# The locked environment, with what a DVC remote in S3 needs, and the code: every stage, as any user. `make image`
# builds it, `make image-repro` runs the pipeline in it over this folder. docker, podman and buildah read this file.
#
# BASE: any Debian-like image with Python 3.11.4 or newer, and its venv.
# TORCH: cuda (as in the lock, 7.0 GB) or cpu (no CUDA libraries; 2.2 to 2.8 GB by estimate, see README.md).
# REVISION: the git commit of the code; `make image` fills it in.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TORCH=cuda
WORKDIR /build
COPY requirements.txt requirements-s3.txt ./
# uv takes a minute for what takes pip ten; it comes from the lock itself.
RUN python3 -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "BASE needs Python 3.11.4 or newer")' \
    && python3 -m venv /opt/venv \
    && python3 -m venv uv \
    && sed -n '/^uv==/,/[^\\]$/p' requirements.txt > uv.txt \
    && uv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement uv.txt
ENV VIRTUAL_ENV=/opt/venv UV_NO_CACHE=1
# The lock has the hashes of PyPI's wheels, which need the CUDA libraries even to be imported. cpu takes all else by
# the lock, and of torch and torchvision the CPU wheels of the same versions from PyTorch's own index; these two have
# hashes of their own, which the lock does not know.
RUN case "${TORCH}" in \
        cuda) uv/bin/uv pip install --require-hashes --requirement requirements.txt --requirement requirements-s3.txt ;; \
        cpu) awk '/^[a-z]/ { cuda = /^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ && !/^nvidia-ml-py==/ } !cuda' \
                requirements.txt > others.txt \
            && uv/bin/uv pip install --no-deps --require-hashes --requirement others.txt --requirement requirements-s3.txt \
            && uv/bin/uv pip install --no-deps --torch-backend cpu \
                $(sed -nE 's/^(torch(vision)?==[^ ]+).*/\1/p' requirements.txt) ;; \
        *) echo "TORCH is cuda or cpu, not ${TORCH}" >&2; exit 2 ;; \
    esac \
    && uv/bin/uv pip check \
    # What only develops this project; compiled after that, or every start would take seconds longer.
    && uv/bin/uv pip uninstall hypothesis mypy pytest pytest-timeout pytest-xdist ruff uv \
        types-defusedxml types-pyyaml types-requests types-tqdm \
    && uv/bin/uv pip check \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv \
    && /opt/venv/bin/python -c "import torch; assert (torch.version.cuda is None) == ('${TORCH}' == 'cpu')"

FROM ${BASE}
# git names commits in MLflow and is what DVC's experiments stand on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv
# HOME is a folder that every user can write; a user without a name has one for MLflow; downloaded weights are kept
# where the results are.
ENV PATH=/opt/venv/bin:${PATH} \
    HOME=/tmp \
    USER=ssd \
    TORCH_HOME=/app/data/torch \
    PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
WORKDIR /app
# What .dockerignore lets through.
COPY . ./
# Of the group root, which any user without a group of its own is in (docker's --user 12345, OpenShift).
RUN dvc config --local core.no_scm true \
    && mkdir -p checkpoints data mlflow models reports .dvc/cache .dvc/tmp \
    && python -m compileall -q cli ssd stages \
    && printf '#!/bin/sh\nPYTHONPATH=/app exec python -m cli.main "$@"\n' > /opt/venv/bin/ssd \
    && chmod 755 /opt/venv/bin/ssd \
    && chown -R 1000:0 /app \
    && chmod -R g=u /app
USER 1000:0

# The 8732 priors of SSD300.
HEALTHCHECK --interval=5m --timeout=60s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from ssd.models.config import paper_config; from ssd.models.priors import make_priors; config = paper_config('vgg16', 300, 21); assert len(make_priors(config.map_sizes(), config.levels)) == 8732"]

# Last, for the layers before do not change with them.
ARG BASE
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ssd-pipeline" \
      org.opencontainers.image.description="A reproducible SSD object-detection pipeline" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.revision="${REVISION}"

# No ENTRYPOINT: what follows the image's name is run, such as `python -m stages.train` or `ssd predict`.
CMD ["dvc", "repro"]
