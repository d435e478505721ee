package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/telemetry"
)

// Admin answers the proxy's supervisor: GET /healthz while the process works, GET /ready when requests can come, GET /config with the
// resources in use, GET /coldstarts with the last starts from zero, and POST /drain, which stops accepting and answers when the
// last request has ended.
func (p *Proxy) Admin(cold *telemetry.ColdStarts) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if !p.Ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ready")
	})
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, _ *http.Request) { p.dump(w) })
	mux.HandleFunc("GET /coldstarts", func(w http.ResponseWriter, _ *http.Request) { p.answer(w, cold.Last()) })
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) {
		p.Stop()
		_, _ = fmt.Fprintln(w, "drained")
	})
	return mux
}

func (p *Proxy) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		p.log.Debug("writing admin response", "error", err)
	}
}

// dump writes {"listeners": {...}, "<type>": {"<name>": {...}}}.
func (p *Proxy) dump(w http.ResponseWriter) {
	out := map[string]any{"addresses": p.Addresses()}
	var failure error
	p.Resources(func(typeURL string, r config.Resource) {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(r)
		if err != nil {
			failure = fmt.Errorf("writing %q: %w", r.GetName(), err)
			return
		}
		kind := path.Ext(typeURL)[1:]
		byName, ok := out[kind].(map[string]json.RawMessage)
		if !ok {
			byName = make(map[string]json.RawMessage)
			out[kind] = byName
		}
		byName[r.GetName()] = text
	})
	if failure != nil {
		http.Error(w, failure.Error(), http.StatusInternalServerError)
		return
	}
	p.answer(w, out)
}
