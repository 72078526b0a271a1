# clipdex in two stages: the first installs into /opt/venv, the second holds only that and runs it.
#
#   docker build -t clipdex .
#   docker run -p 8000:8000 -v clipdex:/data clipdex
#
# docs/docker.md tells more; `make container-proof` builds this file and tries the image.

FROM python:3.11-slim AS build

# Where torch is looked for besides PyPI: its CPU builds. For CUDA another of torch's indexes
# (https://download.pytorch.org/whl/cu128), or nothing for the builds that are on PyPI itself.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src

# From what changes rarely to what changes often, so that an edit of the code rebuilds only the
# last layer. torch comes first: what depends on it would pull another build of it.
RUN export PIP_EXTRA_INDEX_URL="$TORCH_INDEX_URL" \
 && pip install torch==2.13.0 \
 && pip install --no-deps torchvision==0.28.0
COPY pyproject.toml requirements.lock ./
# The extra "train" is for fine-tuning, on the command line and over HTTP.
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['train'], sep='\n')" > requirements.txt \
 && pip install -c requirements.lock -r requirements.txt
COPY README.md LICENSE ./
COPY storage storage
COPY models models
COPY indexer indexer
COPY training training
COPY service service
RUN pip install --no-deps -c requirements.lock .


FROM python:3.11-slim

# A number, so that Kubernetes' runAsNonRoot can tell that it isn't root.
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin clipdex \
 && install --directory --owner=clipdex --group=clipdex /data
COPY --from=build /opt/venv /opt/venv

# Weights that are fetched and models that are converted go to the volume too: the rest of the
# file system may be read-only.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CLIPDEX_DATA=/data \
    CLIPDEX_CACHE=/data/cache \
    HF_HOME=/data/cache/huggingface
USER 10001
VOLUME /data
EXPOSE 8000

# Ready means: the model is loaded and an index answers. A plain Python client, so that no curl is
# needed; it ends with an error on anything but 2xx.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:%s/readyz' % os.environ.get('CLIPDEX_PORT', '8000'), timeout=4)"]

CMD ["clipdex", "serve", "--host", "0.0.0.0"]
