#!/usr/bin/env bash
# Makes sure that this machine has an OCI runtime. crun starts a container about three times as fast as runc, so it is taken from
# the distribution's packages where that is possible; where it is not, runc is built from its Go module into bin/.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v crun >/dev/null || command -v runc >/dev/null || [ -x bin/weft-runc ]; then
	exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "runtime: installing crun"
	if (apt-get install -y --no-install-recommends crun || { apt-get update && apt-get install -y --no-install-recommends crun; }) >/dev/null 2>&1; then
		exit 0
	fi
	echo "runtime: crun is not to be had from this machine's packages"
fi
exec hack/build-runc.sh bin/weft-runc
