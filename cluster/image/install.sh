#!/bin/sh
# The steps of the image that install something; `make check-deploy` runs them in a root of their own.
set -eu

case $1 in
  # install.sh packages KIND BUILD TARGET: an environment with every package of the lock file. With
  # hashes, where a maintainer has written them (`make image-lock`).
  packages)
    kind=$2 build=$3 target=$4
    python3 -m venv "$target"
    hashed=$build/$kind.hashes.txt
    if [ -f "$hashed" ]; then
      set -- --require-hashes --requirement "$hashed"
    else
      echo "no $kind.hashes.txt: packages are taken by version alone" >&2
      set -- --requirement "$build/requirements/$kind.txt"
    fi
    # no source is built: there is no compiler, and nobody has looked at what a build would run
    "$target/bin/python" -m pip install --no-deps --only-binary :all: "$@"
    ;;
  # install.sh product KIND BUILD TARGET: Z-TOM itself, beside its packages.
  product)
    build=$3 target=$4
    "$target/bin/python" -m pip install --no-deps --no-build-isolation "$build/source"
    "$target/bin/python" -c 'from ztom.version import __version__; print("ztom", __version__)'
    ;;
  # install.sh haproxy FOLDER: the program that Serve starts as HAProxy.
  haproxy)
    folder=$2
    python - "$folder" << 'END'
import sys
from pathlib import Path

from serve_apps.server.haproxy import write_haproxy

folder = Path(sys.argv[1])
# the ports that Serve gives HAProxy's own pages unless told otherwise; only this machine reaches them
write_haproxy(folder, private_ports=(9101, 8404)).chmod(0o755)
END
    ;;
  *)
    echo "install.sh packages|product|haproxy, not $1" >&2
    exit 2
    ;;
esac
