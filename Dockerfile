# The locked environment and the code; runs any stage as a plain user. With the repository mounted, results
# stay on the host:
#   docker build -t ssd .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/app" ssd
# Any other Debian-like base with Python 3.11.4 or newer: --build-arg BASE=python:3.12-slim-bookworm. torch brings
# the CUDA libraries with it; a GPU needs --gpus all and the host's driver.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# git names commits in MLflow and is what DVC's experiments stand on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements.txt

COPY . ./
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && dvc config --local core.no_scm true \
    && mkdir -p data models reports mlflow \
    && chown -R 1000:1000 /app

ENV PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    HOME=/tmp \
    USER=ssd
USER 1000:1000

CMD ["dvc", "repro"]
