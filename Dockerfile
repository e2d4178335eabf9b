# The image that `submit --backend kubernetes` runs: this program with CUDA and the driver of PostgreSQL.
#   docker build --tag REGISTRY/tuner:0.1.0 . && docker push REGISTRY/tuner:0.1.0
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/tuner
COPY . .
RUN python -m pip install --constraint constraints.txt ".[gpu,postgresql]" && useradd --create-home worker
USER worker
WORKDIR /workspace
ENTRYPOINT []
CMD ["python", "-m", "tuner", "--help"]
