package image

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// The types of Kubernetes Secrets that hold registry credentials, and the key of each.
const (
	SecretDockerConfigJSON = "kubernetes.io/dockerconfigjson" //nolint:gosec // the name of a type, not a credential
	SecretDockercfg        = "kubernetes.io/dockercfg"        //nolint:gosec // likewise

	keyDockerConfigJSON = ".dockerconfigjson"
	keyDockercfg        = ".dockercfg"
)

// PullSecret is the part of a Kubernetes Secret that matters here.
type PullSecret struct {
	// Name is used in errors.
	Name string
	// Type and Data are the Secret's own.
	Type string
	Data map[string][]byte
}

// Keychain has the credentials of pull secrets. Like kubelet it matches a registry by host, where each label may be a glob, by port
// when the secret names one, and by the start of the path; longer patterns are tried first.
type Keychain struct {
	entries []keychainEntry
}

var _ authn.Keychain = (*Keychain)(nil)

type keychainEntry struct {
	// host may contain globs; port is "" for any; path is "" or starts with a slash.
	host, port, path string
	auth             authn.AuthConfig
}

// dockerAuth is one entry of a docker configuration file.
type dockerAuth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// ParsePullSecrets reads secrets of the two docker types. The keychain is valid even with an error: it has the secrets that could be
// read, as a pod with one broken secret may still start. Secrets of other types are errors.
func ParsePullSecrets(secrets ...PullSecret) (*Keychain, error) {
	k := &Keychain{}
	var errs []error
	for _, s := range secrets {
		entries, err := parseSecret(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("reading pull secret %q: %w", s.Name, err))
			continue
		}
		k.entries = append(k.entries, entries...)
	}
	slices.SortStableFunc(k.entries, func(a, b keychainEntry) int {
		return strings.Compare(b.host+b.port+b.path, a.host+a.port+a.path)
	})
	return k, errors.Join(errs...)
}

func parseSecret(s PullSecret) ([]keychainEntry, error) {
	auths := map[string]dockerAuth{}
	key, into := keyDockercfg, any(&auths)
	var file struct {
		Auths map[string]dockerAuth `json:"auths"`
	}
	switch s.Type {
	case SecretDockerConfigJSON:
		key, into = keyDockerConfigJSON, any(&file)
	case SecretDockercfg:
	default:
		return nil, fmt.Errorf("type %q holds no registry credentials", s.Type)
	}
	data, ok := s.Data[key]
	if !ok {
		return nil, fmt.Errorf("key %q is missing", key)
	}
	if err := json.Unmarshal(data, into); err != nil {
		// The text of a JSON error can quote the input, which is secret.
		return nil, fmt.Errorf("key %q is not valid JSON", key)
	}
	if s.Type == SecretDockerConfigJSON {
		auths = file.Auths
	}
	entries := make([]keychainEntry, 0, len(auths))
	for server, a := range auths {
		e, err := newEntry(server, a)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	// Equal patterns keep the order of the secrets; within one there are none, so any fixed order does.
	slices.SortFunc(entries, func(a, b keychainEntry) int { return strings.Compare(a.host+a.path, b.host+b.path) })
	return entries, nil
}

func newEntry(server string, a dockerAuth) (keychainEntry, error) {
	e := keychainEntry{auth: authn.AuthConfig{
		Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}}
	if a.Auth != "" {
		plain, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			plain, err = base64.RawStdEncoding.DecodeString(a.Auth)
		}
		user, password, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
		if err != nil || !ok {
			return e, fmt.Errorf("auth of %q is not base64 of user:password", server)
		}
		e.auth.Username, e.auth.Password = user, password
	}
	server = strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	host, rest, _ := strings.Cut(server, "/")
	// docker login writes https://index.docker.io/v1/; the version is no part of a repository.
	rest = strings.Trim(rest, "/")
	if rest == "v1" || rest == "v2" {
		rest = ""
	}
	rest = strings.TrimPrefix(strings.TrimPrefix(rest, "v1/"), "v2/")
	if rest != "" {
		rest = "/" + rest
	}
	e.host, e.port = splitHost(host)
	e.host, e.path = canonicalHost(e.host), rest
	return e, nil
}

// splitHost separates a port when there is one.
func splitHost(s string) (host, port string) {
	if h, p, err := net.SplitHostPort(s); err == nil {
		return h, p
	}
	return s, ""
}

// canonicalHost maps the names of Docker Hub to one.
func canonicalHost(h string) string {
	switch h = strings.ToLower(h); h {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com":
		return dockerHub
	}
	return h
}

// Resolve returns the best credentials for a repository, anonymous when there are none.
func (k *Keychain) Resolve(r authn.Resource) (authn.Authenticator, error) { return k.all(r)[0], nil }

// all returns every match, the longest pattern first; anonymous when nothing matches.
func (k *Keychain) all(r authn.Resource) []authn.Authenticator {
	host, port := splitHost(r.RegistryStr())
	host = canonicalHost(host)
	_, repo, _ := strings.Cut(r.String(), "/")
	var out []authn.Authenticator
	for _, e := range k.entries {
		if e.matches(host, port, "/"+repo) {
			out = append(out, authn.FromConfig(e.auth))
		}
	}
	if len(out) == 0 {
		return []authn.Authenticator{authn.Anonymous}
	}
	return out
}

func (e keychainEntry) matches(host, port, repo string) bool {
	if e.port != "" && e.port != port {
		return false
	}
	if !strings.HasPrefix(repo, e.path) {
		return false
	}
	want, got := strings.Split(e.host, "."), strings.Split(host, ".")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], got[i]); err != nil || !ok {
			return false
		}
	}
	return true
}
