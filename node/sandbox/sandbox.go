package sandbox

import "net/netip"

// Sandbox is what the containers of one pod share: a network namespace with an address on the bridge, and namespaces for IPC and UTS.
type Sandbox struct {
	// ID names the sandbox on disk and in the kernel, unique in the instance.
	ID string
	// Address is the pod's IP.
	Address netip.Addr
	// NetNS, IPCNS and UTSNS are paths of bound namespaces that an OCI spec can join.
	NetNS, IPCNS, UTSNS string
}
