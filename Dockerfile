# Both programs in one small image: the command chooses, `shipper run …` or `indexer run …`.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# jemalloc runs where pages are as large as where it was built, or smaller.
RUN if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
 && cargo build --release --locked --package millrace-shipper --package millrace-indexer \
 && install -D -t /out target/release/shipper target/release/indexer

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 65532 -g 65532 /var/lib/shipper
COPY --from=build /out/ /usr/local/bin/
COPY docker/probe /usr/local/bin/probe
COPY templates /etc/millrace/templates
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/millrace/
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
STOPSIGNAL SIGTERM
CMD ["shipper", "--help"]
