#!/usr/bin/env bash
# `make demo`: starts the platform, deploys the samples, and shows a Service warm, split between two revisions, at zero, and cold.
# It is safe to run again: what is there already is kept. It leaves the platform running.
set -euo pipefail
cd "$(dirname "$0")/.."

bold= plain=
if [ -t 1 ]; then
	bold=$(tput bold 2>/dev/null || true)
	plain=$(tput sgr0 2>/dev/null || true)
fi
say() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
show() { printf '$ %s\n' "$*"; "$@"; }
fail() { echo "demo: $1" >&2; exit 1; }
step() { hack/step.sh "$@"; }

[ "$(id -u)" = 0 ] || fail "containers, networks and cgroups need root: run 'sudo make demo'"

if ! command -v curl >/dev/null; then
	command -v apt-get >/dev/null || fail "curl is missing: install it and run make demo again"
	step "installing curl" bash -c '(apt-get install -y --no-install-recommends curl || { apt-get update && apt-get install -y --no-install-recommends curl; }) >/dev/null 2>&1'
fi

url_of() { weft kubectl get ksvc "$1" -o 'jsonpath={.status.url}'; }
# curl resolves *.localhost by itself, whatever the machine's resolver does.
timed() { curl -sS -o /dev/null -w '%{time_total}' --max-time 60 "$1"; }
running() { weft kubectl get pods -l "serving.knative.dev/service=$1" --no-headers 2>/dev/null | grep -c . || true; }
wait_zero() {
	for _ in $(seq 600); do
		[ "$(running "$1")" = 0 ] && return 0
		read -r -t 0.2 _ <> <(:) || true
	done
	fail "$1 did not scale to zero within two minutes; see: weft kubectl describe kpa"
}

say "1. Start the platform"
if weft status >/dev/null 2>&1 && weft kubectl get --raw /readyz >/dev/null 2>&1; then
	echo "it runs already"
else
	weft up --detach
fi

say "2. Build the sample's image and deploy it"
step "building image dev.local/hello:v1 from samples/hello" weft image build dev.local/hello:v1 ./samples/hello
show weft kubectl apply -f samples/hello/service.yaml
step "waiting until hello is ready" weft kubectl wait --for=condition=Ready --timeout=60s ksvc/hello
url=$(url_of hello)

say "3. Ask it: warm"
show curl -sS "$url"
echo "   answered in $(timed "$url") s"

say "4. Split traffic between two revisions, 80 to 20"
show weft kubectl apply -f samples/traffic-split/v1.yaml
step "waiting until the first revision is ready" weft kubectl wait --for=condition=Ready --timeout=60s ksvc/split
show weft kubectl apply -f samples/traffic-split/v2.yaml
step "waiting until the second revision is ready" weft kubectl wait --for=condition=Ready --timeout=60s ksvc/split
split=$(url_of split)
echo "   200 requests to $split:"
curl -sS $(yes "$split" | head -200) | sort | uniq -c

say "5. Wait until nothing runs"
step "waiting for hello to scale to zero (no request for its window of 10 s)" bash -c "$(declare -f running wait_zero fail); wait_zero hello"
show weft kubectl get ksvc,revision,kpa,pods

say "6. Ask it: cold, the first request starts an instance"
echo "   answered in $(timed "$url") s, and now that it runs in $(timed "$url") s"

say "The platform keeps running. Try next:"
cat <<NEXT
  export PATH="$PWD/bin:\$PATH"
  curl $url
  weft kubectl get ksvc,configuration,revision,route,kpa,pods
  weft kubectl describe kpa hello-00001      # the events say why it scaled
  weft status
  weft down                                  # stops it; --purge removes all it made
NEXT
