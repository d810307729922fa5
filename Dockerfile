# `docker build -t kindling .` builds a clone with the scripts that build it anywhere, and makes an
# image with the command line alone: docker run -v "$PWD:/work" kindling train --corpus book.txt
FROM node:24-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential curl python3-pip \
 && rm -rf /var/lib/apt/lists/*
ENV PATH=/root/.cargo/bin:$PATH
RUN curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs \
  | sh -s -- -y --profile minimal --component clippy,rustfmt
WORKDIR /kindling

FROM build AS packages
COPY . .
RUN npm run build \
 && node scripts/packages/build-addon.js linux-x64-gnu --without-cuda \
 && node scripts/packages/pack.js

FROM node:24-bookworm-slim
COPY --from=packages /kindling/target/packages/*.tgz /tmp/packages/
RUN npm install --global /tmp/packages/*.tgz && rm -rf /tmp/packages
WORKDIR /work
ENTRYPOINT ["kindling"]
