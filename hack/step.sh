#!/usr/bin/env bash
# Runs a command as one step: says what is being done, shows on a terminal that time passes, and ends with the time taken.
#   hack/step.sh "building weft" go build ...
set -uo pipefail
what=$1
shift
start=$(date +%s)
ticker=
if [ -t 1 ]; then
	(while sleep 1; do printf '\r\033[K▸ %s ... %ss' "$what" $(($(date +%s) - start)); done) &
	ticker=$!
else
	echo "▸ $what"
fi
"$@"
code=$?
if [ -n "$ticker" ]; then
	kill "$ticker" 2>/dev/null
	wait "$ticker" 2>/dev/null
	printf '\r\033[K'
fi
if [ $code = 0 ]; then
	echo "✓ $what ($(($(date +%s) - start))s)"
else
	echo "✗ $what failed after $(($(date +%s) - start))s (exit code $code)" >&2
fi
exit $code
