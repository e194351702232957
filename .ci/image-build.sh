#!/usr/bin/env bash
# Build an image of the nodes: .ci/image-build.sh cpu|gpu NAME. The base is that of image.lock.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=$1 name=$2 lock=cluster/image/image.lock
if [ ! -f "$lock" ]; then
  echo "There is no $lock, which says which base the image has, by digest: make image-lock BASE=..." >&2
  exit 1
fi
base=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["bases"][sys.argv[2]])' "$lock" "$kind")
builder=$(command -v buildah || command -v podman || true)
if [ -z "$builder" ]; then
  echo "Neither buildah nor podman is here: apt-get install buildah" >&2
  exit 1
fi
"$builder" build --file cluster/image/Containerfile --ignorefile cluster/image/.containerignore \
  --build-arg "BASE=$base" --build-arg "KIND=$kind" --tag "$name" .
