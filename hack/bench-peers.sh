#!/usr/bin/env bash
# Makes sure that the peers and the load generator of bench/proxy are here: haproxy, nginx and wrk, from the distribution's packages.
# The services that the packages bring are not started.
set -euo pipefail

missing=()
command -v haproxy >/dev/null || missing+=(haproxy)
command -v nginx >/dev/null || missing+=(nginx-light)
command -v wrk >/dev/null || missing+=(wrk)
command -v taskset >/dev/null || missing+=(util-linux)
if [ ${#missing[@]} = 0 ]; then
	exit 0
fi
echo "bench: installing ${missing[*]}"
# policy-rc.d keeps packages from starting what they bring; it is put back as it was.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >/dev/null
