# The image of one program, chosen by its module. Built from the root of the repository, as libs and proto are modules
# beside it; the module is built by itself (GOWORK=off), as it would be in a repository of its own.
#
#   docker build --build-arg MODULE=services/order -t waybill/order:dev .
FROM golang:1.26 AS build
ARG MODULE
ENV GOWORK=off CGO_ENABLED=0
WORKDIR /src
COPY libs libs
COPY proto proto
COPY ${MODULE} ${MODULE}
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    cd "${MODULE:?choose one with --build-arg MODULE=services/order}" && go build -trimpath -ldflags="-s -w" -o /program .

# No shell, no package manager, not root (uid 65532).
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /program /program
ENTRYPOINT ["/program"]
