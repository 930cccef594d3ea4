# docker build -t fanfare .
# docker run -p 8080:8080 fanfare                              says what to type as long as there are no keys
# docker run -p 8080:8080 -e FANFARE_INSECURE=true fanfare     runs; whoever reaches the port may publish and subscribe
# Add -v fanfare:/var/lib/fanfare to keep the messages when the container is gone.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
ARG PROFILE=release
# The libraries first, so that a change of our own code does not compile them again.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches data \
    && echo 'fn main() {}' | tee src/main.rs benches/idle.rs benches/queue.rs benches/store.rs benches/storm.rs > benches/fanout.rs \
    && touch src/lib.rs \
    && cargo build --locked --profile "$PROFILE"
COPY src src
COPY static static
# Copied files are older than what was just built of the placeholders.
RUN touch src/lib.rs src/main.rs \
    && cargo install --locked --no-track --path . --profile "$PROFILE" --root out \
    && strip --strip-debug out/bin/fanfare

FROM debian:bookworm-slim
COPY --from=build /src/out/bin/fanfare /usr/local/bin/fanfare
COPY --from=build --chown=10001:10001 /src/data /var/lib/fanfare
# fanfare.toml is read here, if there is one.
WORKDIR /var/lib/fanfare
VOLUME /var/lib/fanfare
USER 10001:10001
ENV FANFARE_LISTEN=0.0.0.0:8080
# In the volume.
ENV FANFARE_DATA=store
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["fanfare", "health"]
ENTRYPOINT ["fanfare"]
CMD ["serve"]
