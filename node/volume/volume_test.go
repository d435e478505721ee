package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weft-dev/weft/node/downward"
)

// fakeObjects has one config map and one secret.
type fakeObjects struct {
	// mu guards everything below.
	mu        sync.Mutex
	configMap map[string]string
	secret    map[string]string
	changed   []func()
}

func (f *fakeObjects) ConfigMap(_ context.Context, _, name string) (*v1.ConfigMap, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != "cm" {
		return nil, apierrors.NewNotFound(v1.Resource("configmaps"), name)
	}
	return &v1.ConfigMap{Data: f.configMap, BinaryData: map[string][]byte{"bin": {0, 1}}}, nil
}

func (f *fakeObjects) Secret(_ context.Context, _, name string) (*v1.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != "s" {
		return nil, apierrors.NewNotFound(v1.Resource("secrets"), name)
	}
	data := map[string][]byte{}
	for k, v := range f.secret {
		data[k] = []byte(v)
	}
	return &v1.Secret{Data: data}, nil
}

func (f *fakeObjects) watch(changed func()) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changed = append(f.changed, changed)
	return func() {}
}

func (f *fakeObjects) WatchConfigMap(_, _ string, changed func()) func() { return f.watch(changed) }
func (f *fakeObjects) WatchSecret(_, _ string, changed func()) func()    { return f.watch(changed) }

func (f *fakeObjects) set(data map[string]string) {
	f.mu.Lock()
	f.configMap = data
	changed := f.changed
	f.mu.Unlock()
	for _, c := range changed {
		c()
	}
}

// fakeTokens counts and names the tokens that it gives.
type fakeTokens struct {
	mu    sync.Mutex // guards count
	count int
	life  time.Duration
}

func (f *fakeTokens) Token(
	_ context.Context, _, _ string, req *authenticationv1.TokenRequest,
) (*authenticationv1.TokenRequest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if req.Spec.BoundObjectRef == nil || req.Spec.BoundObjectRef.Kind != "Pod" {
		return nil, errors.New("the token is not bound to the pod")
	}
	return &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
		Token: strings.Repeat("t", f.count), ExpirationTimestamp: metav1.NewTime(time.Now().Add(f.life)),
	}}, nil
}

func newSet(t *testing.T, volumes []v1.Volume, change ...func(*v1.Pod)) (*Set, *fakeObjects, *fakeTokens) {
	t.Helper()
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", Labels: map[string]string{"app": "x"}},
		Spec:       v1.PodSpec{ServiceAccountName: "sa", Volumes: volumes, Containers: []v1.Container{{Name: "c"}}},
	}
	for _, f := range change {
		f(pod)
	}
	objects := &fakeObjects{configMap: map[string]string{"a": "1", "b": "2"}, secret: map[string]string{"p": "w"}}
	tokens := &fakeTokens{life: time.Hour}
	dir := filepath.Join(t.TempDir(), "volumes")
	s := New(Options{Dir: dir, Source: downward.Source{Pod: pod, CPUs: 2, MemoryBytes: 1 << 20}, Objects: objects, Tokens: tokens})
	t.Cleanup(func() {
		s.Close()
		if err := Remove(dir); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the volumes are still there: %v", err)
		}
	})
	return s, objects, tokens
}

// files reads all files of a volume as a container sees them.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			for name, data := range files(t, path+"/.") {
				out[e.Name()+"/"+name] = data
			}
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(data)
	}
	return out
}

func configMapVolume(change ...func(*v1.ConfigMapVolumeSource)) v1.Volume {
	source := &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}
	for _, f := range change {
		f(source)
	}
	return v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{ConfigMap: source}}
}

func TestDataVolumes(t *testing.T) {
	t.Parallel()
	ref := func(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }
	for _, tt := range []struct {
		name    string
		volume  v1.VolumeSource
		want    map[string]string
		wantErr string
	}{
		{name: "config map", volume: configMapVolume().VolumeSource, want: map[string]string{"a": "1", "b": "2", "bin": "\x00\x01"}},
		{
			name: "items", volume: configMapVolume(func(s *v1.ConfigMapVolumeSource) {
				s.Items = []v1.KeyToPath{{Key: "a", Path: "deep/er/a.txt"}}
			}).VolumeSource,
			want: map[string]string{"deep/er/a.txt": "1"},
		},
		{
			name: "missing key", volume: configMapVolume(func(s *v1.ConfigMapVolumeSource) {
				s.Items = []v1.KeyToPath{{Key: "no", Path: "x"}}
			}).VolumeSource,
			wantErr: `MountVolume.SetUp failed for volume "v" : references non-existent config key: no`,
		},
		{
			name: "path out of the volume", volume: configMapVolume(func(s *v1.ConfigMapVolumeSource) {
				s.Items = []v1.KeyToPath{{Key: "a", Path: "x/../../y"}}
			}).VolumeSource,
			wantErr: `MountVolume.SetUp failed for volume "v" : invalid path in a volume: "x/../../y"`,
		},
		{
			name:    "missing config map",
			volume:  v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: ref("no")}},
			wantErr: `MountVolume.SetUp failed for volume "v" : configmaps "no" not found`,
		},
		{
			name:   "optional",
			volume: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "no", Optional: new(true)}}, want: map[string]string{},
		},
		{name: "secret", volume: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "s"}}, want: map[string]string{"p": "w"}},
		{
			name: "downward API", volume: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{Items: []v1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
				{Path: "cpu", ResourceFieldRef: &v1.ResourceFieldSelector{ContainerName: "c", Resource: "limits.cpu"}},
			}}}, want: map[string]string{"labels": `app="x"`, "cpu": "2"},
		},
		{
			name: "projected", volume: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
				{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
				{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: ref("cm"), Items: []v1.KeyToPath{{Key: "a", Path: "ca.crt"}}}},
				{Secret: &v1.SecretProjection{LocalObjectReference: ref("s")}},
				{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{
					{Path: "namespace", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.namespace"}},
				}}},
			}}}, want: map[string]string{"token": "t", "ca.crt": "1", "p": "w", "namespace": "ns"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := v1.Volume{Name: "v", VolumeSource: tt.volume}
			s, _, _ := newSet(t, []v1.Volume{v})
			err := s.Setup(t.Context())
			if tt.wantErr != "" {
				if err == nil || err.Error() != tt.wantErr {
					t.Fatalf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, files(t, s.Path(&v))); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestModesAndGroup(t *testing.T) {
	t.Parallel()
	v := configMapVolume(func(s *v1.ConfigMapVolumeSource) {
		s.DefaultMode, s.Items = new(int32(0o400)), []v1.KeyToPath{{Key: "a", Path: "a"}, {Key: "b", Path: "b", Mode: new(int32(0o755))}}
	})
	empty := v1.Volume{Name: "empty", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}
	s, _, _ := newSet(t, []v1.Volume{v, empty}, func(p *v1.Pod) {
		p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: new(int64(4321))}
	})
	if err := s.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		want uint32
	}{
		{path: filepath.Join(s.Path(&v), "a"), want: 0o440},
		{path: filepath.Join(s.Path(&v), "b"), want: 0o755},
		{path: s.Path(&empty), want: 0o2777},
	} {
		var st unix.Stat_t
		if err := unix.Stat(tt.path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != tt.want || st.Gid != 4321 {
			t.Errorf("%s has mode %o and group %d, want %o and 4321", tt.path, st.Mode&0o7777, st.Gid, tt.want)
		}
	}
}

func TestUpdateIsAtomic(t *testing.T) {
	t.Parallel()
	v := configMapVolume()
	s, objects, _ := newSet(t, []v1.Volume{v})
	if err := s.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	defer func() { cancel(); <-done }()
	dir := s.Path(&v)
	data := filepath.Join(dir, dataLink)
	for round, value := range []string{"x", "y", "z"} {
		objects.set(map[string]string{"a": value, "b": value})
		// A directory that was opened once shows one version only: both files change together.
		await(t, func() bool {
			content, err := filepath.EvalSymlinks(data)
			if err != nil {
				t.Fatal(err)
			}
			a, errA := os.ReadFile(filepath.Join(content, "a"))
			b, errB := os.ReadFile(filepath.Join(content, "b"))
			if errA != nil || errB != nil {
				return false // replaced and removed meanwhile
			}
			if round > 0 && string(a) != string(b) {
				t.Fatalf("half an update: %q and %q", a, b)
			}
			return string(a) == value
		})
	}
	objects.set(map[string]string{"b": "only"})
	await(t, func() bool {
		_, err := os.Lstat(filepath.Join(dir, "a"))
		return errors.Is(err, fs.ErrNotExist)
	})
	if diff := cmp.Diff(map[string]string{"b": "only", "bin": "\x00\x01"}, files(t, dir)); diff != "" {
		t.Errorf("files after a key was removed (-want +got):\n%s", diff)
	}
	entries, err := filepath.Glob(filepath.Join(dir, "..2*"))
	if err != nil || len(entries) != 1 {
		t.Errorf("versions left: %v, %v", entries, err)
	}
}

// await polls until cond is true: files have no event that tells that an update is complete.
func await(t *testing.T, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			t.Fatal("the condition did not become true")
		case <-tick.C:
		}
	}
}

func TestTokensAreRenewed(t *testing.T) {
	t.Parallel()
	v := v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
		{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
	}}}}
	s, _, tokens := newSet(t, []v1.Volume{v})
	tokens.life = 100 * time.Millisecond
	if err := s.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	await(t, func() bool { return files(t, s.Path(&v))["token"] == "ttt" })
	cancel()
	<-done
}

func TestSecretsAndMemoryStayOffTheDisk(t *testing.T) {
	t.Parallel()
	secret := v1.Volume{Name: "s", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "s"}}}
	memory := v1.Volume{Name: "m", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}}
	s, _, _ := newSet(t, []v1.Volume{secret, memory})
	for range 2 { // repeating must not mount twice
		if err := s.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []v1.Volume{secret, memory} {
		var st unix.Statfs_t
		if err := unix.Statfs(s.Path(&v), &st); err != nil {
			t.Fatal(err)
		}
		if st.Type != unix.TMPFS_MAGIC {
			t.Errorf("volume %s is on a file system of type %x", v.Name, st.Type)
		}
	}
	mounts, err := mountsBelow(s.options.Dir)
	if err != nil || len(mounts) != 2 {
		t.Errorf("mounts %q, %v, want two", mounts, err)
	}
}

func TestSubPath(t *testing.T) {
	t.Parallel()
	v := v1.Volume{Name: "e", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}
	s, _, _ := newSet(t, []v1.Volume{v})
	if err := s.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // as for the next attempt of the container
		target, err := s.SubPath(s.Path(&v), "a/b", "c", 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(target, "f"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(s.Path(&v), "a/b/f")); err != nil || string(data) != "x" {
		t.Errorf("the file is not in the volume: %q, %v", data, err)
	}
	if err := os.Symlink("/etc", filepath.Join(s.Path(&v), "out")); err != nil {
		t.Fatal(err)
	}
	if target, err := s.SubPath(s.Path(&v), "out", "c", 1); err == nil {
		t.Errorf("a link out of the volume was followed to %q", target)
	}
}

func TestHostPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path string
		kind       v1.HostPathType
		wantErr    string
	}{
		{name: "any", path: dir, kind: v1.HostPathUnset},
		{name: "directory", path: dir, kind: v1.HostPathDirectory},
		{name: "missing directory", path: dir + "/no", kind: v1.HostPathDirectory, wantErr: "hostPath type check failed: " + dir + "/no is not a directory"},
		{name: "new directory", path: dir + "/new/deep", kind: v1.HostPathDirectoryOrCreate},
		{name: "file", path: dir + "/file", kind: v1.HostPathFile},
		{name: "not a file", path: dir, kind: v1.HostPathFile, wantErr: "hostPath type check failed: " + dir + " is not a file"},
		{name: "new file", path: dir + "/touched", kind: v1.HostPathFileOrCreate},
		{name: "not a socket", path: dir + "/file", kind: v1.HostPathSocket, wantErr: "hostPath type check failed: " + dir + "/file is not a socket file"},
		{name: "character device", path: "/dev/null", kind: v1.HostPathCharDev},
		{name: "not a block device", path: "/dev/null", kind: v1.HostPathBlockDev, wantErr: "hostPath type check failed: /dev/null is not a block device"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := checkHostPath(&v1.HostPathVolumeSource{Path: tt.path, Type: &tt.kind}); err != nil {
				got = err.Error()
			}
			if got != tt.wantErr {
				t.Errorf("error %q, want %q", got, tt.wantErr)
			}
		})
	}
}
