package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// The rhythm of the node's heartbeat, kubelet's.
const (
	leaseDuration  = 40 * time.Second
	leasePeriod    = leaseDuration / 4
	statusPeriod   = 5 * time.Minute
	registerRetry  = 100 * time.Millisecond
	registerMost   = 5 * time.Second
	reasonReady    = "KubeletReady"
	messageReady   = "kubelet is posting ready status"
	leaseNamespace = v1.NamespaceNodeLease
)

// registrar keeps the Node of this machine and its Lease.
type registrar struct {
	client  kubernetes.Interface
	name    string
	address string
	port    int
	machine machine
	log     *slog.Logger
	since   metav1.Time
}

func newRegistrar(o Options, m machine) *registrar {
	return &registrar{
		client: o.Client, name: o.NodeName, address: o.Address, port: o.Port, machine: m, log: o.Log,
		since: metav1.NewTime(time.Now().Truncate(time.Second)),
	}
}

// run registers the node, trying again until it works, and then keeps up its heartbeat until ctx ends.
func (r *registrar) run(ctx context.Context) error {
	pause := registerRetry
	for {
		err := r.register(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		r.log.Warn("Registering the node failed", "err", err)
		if !sleep(ctx, pause) {
			return nil
		}
		pause = min(2*pause, registerMost)
	}
	r.log.Info("Node registered", "node", r.name)
	lease, status := time.NewTicker(leasePeriod), time.NewTicker(statusPeriod)
	defer lease.Stop()
	defer status.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-lease.C:
			err = r.renew(ctx)
		case <-status.C:
			err = r.register(ctx) // also brings back a node that somebody deleted
		}
		if err != nil && ctx.Err() == nil {
			r.log.Warn("The node's heartbeat failed", "err", err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// register creates the node or brings the one that exists up to date.
func (r *registrar) register(ctx context.Context) error {
	want := r.node()
	_, err := r.client.CoreV1().Nodes().Create(ctx, want, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating the node: %w", err)
	}
	// Creating ignores taints by admission, so that the rest is the same for a new node and an old one.
	meta, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": want.Labels}})
	if err != nil {
		return fmt.Errorf("encoding the labels: %w", err)
	}
	node, err := r.client.CoreV1().Nodes().Patch(ctx, r.name, types.StrategicMergePatchType, meta, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("labelling the node: %w", err)
	}
	status := want.Status
	for i := range status.Conditions {
		c := &status.Conditions[i]
		for _, old := range node.Status.Conditions {
			if old.Type == c.Type && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return fmt.Errorf("encoding the node's status: %w", err)
	}
	_, err = r.client.CoreV1().Nodes().Patch(ctx, r.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("writing the node's status: %w", err)
	}
	if err := r.untaint(ctx, node); err != nil {
		return err
	}
	return r.renew(ctx)
}

// untaint removes the taints that the API gives to nodes that are not ready, since it is not certain that a controller runs that would.
func (r *registrar) untaint(ctx context.Context, node *v1.Node) error {
	var keep []v1.Taint
	for _, t := range node.Spec.Taints {
		if t.Key != v1.TaintNodeNotReady && t.Key != v1.TaintNodeUnreachable {
			keep = append(keep, t)
		}
	}
	if len(keep) == len(node.Spec.Taints) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"taints": keep}})
	if err != nil {
		return fmt.Errorf("encoding the taints: %w", err)
	}
	if _, err := r.client.CoreV1().Nodes().Patch(ctx, r.name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("removing taints: %w", err)
	}
	return nil
}

func (r *registrar) node() *v1.Node {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	condition := func(t v1.NodeConditionType, s v1.ConditionStatus, reason, message string) v1.NodeCondition {
		return v1.NodeCondition{
			Type: t, Status: s, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: r.since,
		}
	}
	capacity := r.machine.capacity()
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: r.name, Labels: map[string]string{
			v1.LabelHostname: r.name, v1.LabelOSStable: r.machine.info.OperatingSystem, v1.LabelArchStable: r.machine.info.Architecture,
		}},
		Status: v1.NodeStatus{
			Capacity: capacity, Allocatable: capacity.DeepCopy(), NodeInfo: r.machine.info,
			Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: r.address}, {Type: v1.NodeHostName, Address: r.name}},
			DaemonEndpoints: v1.NodeDaemonEndpoints{
				KubeletEndpoint: v1.DaemonEndpoint{Port: int32(r.port)},
			},
			Conditions: []v1.NodeCondition{
				condition(v1.NodeMemoryPressure, v1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
				condition(v1.NodeDiskPressure, v1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
				condition(v1.NodePIDPressure, v1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
				condition(v1.NodeReady, v1.ConditionTrue, reasonReady, messageReady),
			},
		},
	}
}

// renew renews the lease by which the control plane knows that the node lives.
func (r *registrar) renew(ctx context.Context) error {
	leases := r.client.CoordinationV1().Leases(leaseNamespace)
	now := metav1.NowMicro()
	lease, err := leases.Get(ctx, r.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		lease = &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: r.name, Namespace: leaseNamespace},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity: &r.name, LeaseDurationSeconds: new(int32(leaseDuration / time.Second)), RenewTime: &now,
			},
		}
		if _, err := leases.Create(ctx, lease, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("creating the lease: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the lease: %w", err)
	}
	lease.Spec.HolderIdentity, lease.Spec.RenewTime = &r.name, &now
	if _, err := leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("renewing the lease: %w", err)
	}
	return nil
}
