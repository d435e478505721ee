package image

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
)

func configSecret(body string) PullSecret {
	return PullSecret{Name: "s", Type: SecretDockerConfigJSON, Data: map[string][]byte{keyDockerConfigJSON: []byte(body)}}
}

func TestKeychainMatches(t *testing.T) {
	t.Parallel()
	k, err := ParsePullSecrets(
		configSecret(`{"auths":{
			"https://index.docker.io/v1/":{"auth":"`+base64.StdEncoding.EncodeToString([]byte("hub:a:b"))+`"},
			"quay.io":{"username":"quay","password":"p"},
			"quay.io/team":{"username":"team","password":"p"},
			"*.example.com":{"username":"glob","password":"p"},
			"reg.example.com:5000":{"username":"port","password":"p"},
			"https://host.local/v2/":{"username":"v2","password":"p"}
		}}`),
		PullSecret{Name: "old", Type: SecretDockercfg, Data: map[string][]byte{keyDockercfg: []byte(`{"gcr.io":{"username":"old","password":"p"},"quay.io":{"username":"late","password":"p"}}`)}},
	)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, repo string
		want       []string
	}{
		{"docker hub", "nginx", []string{"hub"}},
		{"docker hub by name", "docker.io/me/app", []string{"hub"}},
		{"host, in the order of the secrets", "quay.io/other/app", []string{"quay", "late"}},
		{"longer path first", "quay.io/team/app", []string{"team", "quay", "late"}},
		{"glob", "a.example.com/app", []string{"glob"}},
		{"glob is one label", "a.b.example.com/app", []string{""}},
		{"glob matches any port", "a.example.com:444/app", []string{"glob"}},
		{"port", "reg.example.com:5000/app", []string{"port", "glob"}},
		{"other port", "reg.example.com:5001/app", []string{"glob"}},
		{"version in the URL", "host.local/app", []string{"v2"}},
		{"dockercfg", "gcr.io/p/app", []string{"old"}},
		{"no match", "ghcr.io/p/app", []string{""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, a := range k.all(must(name.NewRepository(tt.repo))) {
				got = append(got, must(a.Authorization()).Username)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("users (-want +got):\n%s", diff)
			}
		})
	}
	a, err := k.Resolve(must(name.NewRepository("nginx")))
	if err != nil {
		t.Fatal(err)
	}
	if got := must(a.Authorization()).Password; got != "a:b" {
		t.Errorf("password of auth is %q, want everything behind the first colon", got)
	}
}

func TestParsePullSecretsErrors(t *testing.T) {
	t.Parallel()
	const hidden = "hunter2"
	tests := []struct {
		name, want string
		secret     PullSecret
	}{
		{"other type", "holds no registry credentials", PullSecret{Name: "s", Type: "Opaque"}},
		{"missing key", `".dockerconfigjson" is missing`, PullSecret{Name: "s", Type: SecretDockerConfigJSON}},
		{"not JSON", "not valid JSON", configSecret(`{"auths":` + hidden)},
		{"not base64", "is not base64", configSecret(`{"auths":{"a.io":{"auth":"` + hidden + `!"}}}`)},
		{"no colon", "is not base64", configSecret(`{"auths":{"a.io":{"auth":"aHVudGVyMg=="}}}`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k, err := ParsePullSecrets(tt.secret, configSecret(`{"auths":{"good.io":{"username":"good","password":"p"}}}`))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), `"s"`) {
				t.Errorf("error %v, want %q and the secret's name", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), hidden) {
				t.Errorf("error %v shows the secret", err)
			}
			if got := must(must(k.Resolve(must(name.NewRepository("good.io/app")))).Authorization()).Username; got != "good" {
				t.Errorf("the other secret gives %q", got)
			}
		})
	}
}
