# The program in an image of its own: harness, gateway, mock model or server, by its first argument.
#
#   docker build -t batchsql .
#   docker run --rm -v "$PWD/reports:/work/reports" --user "$(id -u):$(id -g)" batchsql run scenarios/quickstart.yaml
#
# Scenarios and configuration are in it; a folder mounted over /work/scenarios or /work/config wins.
ARG RUNTIME=debian:bookworm-slim

FROM ${RUNTIME} AS runtime
# Authorities, for services over TLS. A base image may have them already.
RUN [ -e /etc/ssl/certs/ca-certificates.crt ] || { apt-get update && apt-get install -y --no-install-recommends ca-certificates \
      && rm -rf /var/lib/apt/lists/*; }
# Whoever runs it may write into these, so that `--user` can give the reports their owner on the host.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin batchsql \
    && mkdir -p /work/reports /var/lib/batchsql /var/log/app && chown batchsql:batchsql /work /work/reports /var/lib/batchsql /var/log/app \
    && chmod 1777 /work/reports /var/log/app
COPY scenarios /work/scenarios
COPY config/gateway.yaml config/upstream.yaml /work/config/
WORKDIR /work
USER batchsql
VOLUME /work/reports
# All that listens answers GET /health; the port is that of the harness's metrics, or what HEALTH_PORT says.
ENV HEALTH_PORT=9464
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=5 CMD \
    ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/$HEALTH_PORT && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["batchsql"]
CMD ["--help"]

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY benches benches
RUN cargo build --release --locked --bin batchsql && strip target/release/batchsql

FROM runtime
COPY --from=build /build/target/release/batchsql /usr/local/bin/batchsql
