package container

import (
	"context"
	"io"
	"time"
)

// Runtime runs containers. The only product implementation drives an OCI runtime binary (crun or runc) through one small
// monitor process per container, so that a container's output and exit code survive the death of weft.
//
// All methods may be called concurrently. A method on an unknown id returns an error for which errors.Is(err, ErrNotFound) holds.
type Runtime interface {
	// Start creates and starts a container and returns when its process runs. It owns spec afterwards. When the process cannot
	// be started (no such executable, bad user), the error is a *StartError and nothing is left behind.
	Start(ctx context.Context, spec Spec) (Status, error)
	// Status answers from the monitor's files; it is cheap.
	Status(ctx context.Context, id string) (Status, error)
	// Wait blocks until the container has exited or ctx ends.
	Wait(ctx context.Context, id string) (Status, error)
	// Kill sends a signal to the container's first process. A container that has exited is no error.
	Kill(ctx context.Context, id string, signal int) error
	// Delete removes an exited container (a running one is killed first) with its root file system, bundle and cgroup. Its log stays.
	Delete(ctx context.Context, id string) error
	// Exec runs a process in a running container and returns its exit code.
	Exec(ctx context.Context, id string, opts ExecOptions) (exitCode int, err error)
	// List returns all containers of this instance on disk, running or exited, for adoption after a restart.
	List(ctx context.Context) ([]Info, error)
}

// Spec is everything needed to run one container.
type Spec struct {
	// ID is unique in the instance and a valid file name.
	ID string
	// Labels come back from List; the node agent stores the pod's uid, namespace and name, the container's name and the attempt.
	Labels map[string]string
	// Layers are lower directories for overlayfs, base first.
	Layers []string
	// ReadOnlyRoot mounts the root file system read-only.
	ReadOnlyRoot bool
	Process      Process
	Mounts       []Mount
	// NetNS, IPCNS and UTSNS are paths of namespaces to join. Without NetNS and UTSNS the container is in those of the machine,
	// without IPCNS in a new one.
	NetNS, IPCNS, UTSNS string
	// Hostname is set in the UTS namespace, and as HOSTNAME in the environment. It is ignored without UTSNS.
	Hostname  string
	Resources Resources
	// LogPath is the absolute path of the log in CRI format ("<RFC3339Nano> stdout F <line>").
	LogPath string
	// Privileged gives all capabilities, devices and writable sysfs.
	Privileged bool
}

// Process is the first process of a container.
type Process struct {
	// Args is the command; Args[0] is looked up in the container's PATH.
	Args []string
	// Env in the form KEY=value, the later of two equal keys wins.
	Env []string
	// Cwd is absolute; created when missing.
	Cwd string
	// User is resolved against the image's /etc/passwd and /etc/group: "", "uid", "name", "uid:gid", "name:group".
	User string
	// UID and GID override what User resolves to.
	UID, GID *int64
	// SupplementalGroups are added to those of the user.
	SupplementalGroups []int64
	// AddCapabilities and DropCapabilities change the default set; names without CAP_, "ALL" allowed.
	AddCapabilities, DropCapabilities []string
	NoNewPrivileges                   bool
	// Stdin keeps standard input open; otherwise it is /dev/null.
	Stdin bool
	// TTY gives the process a terminal.
	TTY bool
}

// Mount is a bind mount of a host path or, with Source empty, a tmpfs.
type Mount struct {
	Source      string
	Destination string
	ReadOnly    bool
	// SizeBytes bounds a tmpfs; zero means no limit.
	SizeBytes int64
}

// Resources are limits; zero means none.
type Resources struct {
	// CPUShares in cgroup v1 units (2 to 262144), from the CPU request.
	CPUShares uint64
	// CPUQuota and CPUPeriod in microseconds, from the CPU limit.
	CPUQuota  int64
	CPUPeriod uint64
	// MemoryLimit in bytes.
	MemoryLimit int64
	// PidsLimit is the number of processes and threads.
	PidsLimit int64
	// CgroupPath below the instance's parent, for example "pod<uid>/<container id>".
	CgroupPath string
	// OOMScoreAdj is applied when the machine allows it.
	OOMScoreAdj int
}

// State of a container.
type State string

// The states, as the OCI runtime specification names them where it does.
const (
	StateRunning State = "running"
	StateStopped State = "stopped"
	// StateUnknown is a container whose monitor and process are gone without an exit code, as after a reboot.
	StateUnknown State = "unknown"
)

// Status is the state of a container at one moment.
type Status struct {
	State      State
	PID        int
	StartedAt  time.Time
	FinishedAt time.Time
	// ExitCode is 128+n for a process that signal n ended.
	ExitCode int
	// Signal that ended the process, or zero.
	Signal int
	// OOMKilled says that the kernel killed a process of the container for its memory limit.
	OOMKilled bool
}

// Info is a container as List finds it.
type Info struct {
	ID      string
	Labels  map[string]string
	LogPath string
	Status  Status
}

// ExecOptions describe a process to run in a container.
type ExecOptions struct {
	Args []string
	TTY  bool
	// Stdin may be nil. Stdout must not be; Stderr is nil with a TTY.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize carries terminal sizes; nil without a TTY.
	Resize <-chan Size
}

// Size of a terminal in characters.
type Size struct{ Width, Height uint16 }
