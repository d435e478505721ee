package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"knative.dev/pkg/apis"
)

// echoed are the headers of a request as the instance got it.
func (u *user) echoed(to *apis.URL, headers ...string) http.Header {
	u.Helper()
	request, err := http.NewRequestWithContext(u.Context(), http.MethodGet, to.String()+"/headers", http.NoBody)
	if err != nil {
		u.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := u.HTTP.Do(request)
	if err != nil {
		u.Fatalf("GET %s/headers: %v", to, err)
	}
	defer response.Body.Close()
	var said struct {
		Headers  http.Header `json:"headers"`
		Revision string      `json:"revision"`
	}
	if err := json.NewDecoder(response.Body).Decode(&said); err != nil || response.StatusCode != http.StatusOK {
		u.Fatalf("GET %s/headers: status %d, %v", to, response.StatusCode, err)
	}
	said.Headers["Revision"] = []string{said.Revision}
	return said.Headers
}

const (
	tagHeader     = "Knative-Serving-Tag"
	defaultHeader = "Knative-Serving-Default-Route"
)

func TestTagHeaderChoosesTheTag(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	u.deploy("tagged", env("VERSION", "one"))
	s := u.change("tagged", version("two"), split(target("tagged-00001", 0, "old"), target("", 100, "")))

	// Without the gate, the header is the instance's business.
	if got := u.echoed(s.Status.URL, tagHeader, "old"); got.Get("Revision") != "tagged-00002" || got.Get(defaultHeader) != "" {
		t.Errorf("with the gate off the request went to %s with %v", got.Get("Revision"), got)
	}
	u.configure("config-features", map[string]string{"tag-header-based-routing": "enabled"})
	u.wait(10*time.Second, "the gate is live", func() error {
		if got := u.echoed(s.Status.URL, tagHeader, "old"); got.Get("Revision") != "tagged-00001" {
			return fmt.Errorf("the request went to %s", got.Get("Revision"))
		}
		return nil
	})
	for _, tt := range []struct {
		name, revision, tag, isDefault string
		to                             *apis.URL
		sent                           []string
	}{
		{name: "tag", to: s.Status.URL, sent: []string{tagHeader, "old"}, revision: "tagged-00001", tag: "old"},
		{name: "unknown tag", to: s.Status.URL, sent: []string{tagHeader, "none"}, revision: "tagged-00002", tag: "none", isDefault: "true"},
		{name: "no header", to: s.Status.URL, revision: "tagged-00002", isDefault: "true"},
		{name: "a client's own default header", to: s.Status.URL, sent: []string{defaultHeader, "false"}, revision: "tagged-00002", isDefault: "true"},
		{name: "host of the tag", to: tagURL(s, "old"), revision: "tagged-00001", tag: "old"},
		{name: "host of the tag and another header", to: tagURL(s, "old"), sent: []string{tagHeader, "none"}, revision: "tagged-00001", tag: "old"},
	} {
		got := u.echoed(tt.to, tt.sent...)
		if got.Get("Revision") != tt.revision || got.Get(tagHeader) != tt.tag || got.Get(defaultHeader) != tt.isDefault {
			t.Errorf("%s: revision %q, tag %q, default %q; want %q, %q, %q", tt.name,
				got.Get("Revision"), got.Get(tagHeader), got.Get(defaultHeader), tt.revision, tt.tag, tt.isDefault)
		}
	}
	if s := u.waitObserved("tagged"); s.Status.ObservedGeneration != s.Generation {
		t.Errorf("the service is not ready with the gate on: %s", conditions(s))
	}
}
