# The backend and its worker, for CPUs; for a GPU: docker build --build-arg TORCH=cuda .
FROM python:3.11-slim-bookworm AS build
ARG TORCH=cpu
WORKDIR /build
COPY requirements.lock pyproject.toml ./
# The lock's torch is the one for CUDA; uv knows where the same version for CPUs is.
RUN case "$TORCH" in \
      cpu) source="--torch-backend=cpu" ;; \
      cuda) source= ;; \
      *) echo "TORCH must be cpu or cuda, not $TORCH" >&2; exit 1 ;; \
    esac \
 && pip install --no-cache-dir "$(grep '^uv==' requirements.lock)" \
 && uv venv /opt/second-look \
 && uv pip install --no-cache --python /opt/second-look/bin/python $source --constraint requirements.lock \
      -r pyproject.toml --extra postgresql --extra redis
COPY . .
RUN uv pip install --no-cache --no-deps --python /opt/second-look/bin/python .

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home second-look && install -d -o second-look -g second-look /state
COPY --from=build /opt/second-look /opt/second-look
# Pretrained weights are fetched once, into the volume that the containers share.
ENV PATH=/opt/second-look/bin:$PATH PYTHONUNBUFFERED=1 SECOND_LOOK_STATE_DIR=/state HF_HOME=/state/hub
USER second-look
WORKDIR /home/second-look
VOLUME /state
EXPOSE 9090
CMD ["second-look", "serve"]
