package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/pod"
	"github.com/weft-dev/weft/node/volume"
)

// adopt keeps the sandboxes of pods that the API has, and stops and removes what an earlier process left of all others. The
// containers of pods that exist are adopted by their workers.
func (a *Agent) adopt(ctx context.Context, pods map[types.UID]*v1.Pod, left map[types.UID][]container.Info) {
	keep := make([]string, 0, len(pods))
	for uid := range pods {
		keep = append(keep, string(uid))
	}
	orphans := a.orphans(pods, left)
	for _, uid := range orphans {
		if uid != "" {
			keep = append(keep, string(uid)) // released after their containers have ended
		}
	}
	if err := a.o.Sandboxes.Adopt(ctx, keep); err != nil {
		a.log.Warn("Adopting sandboxes failed in part", "err", err)
	}
	a.sweepLogs(keep)
	for _, uid := range orphans {
		w, err := pod.NewOrphan(a.shared, uid, left[uid])
		if err != nil {
			a.log.Info("Removing a pod without a checkpoint", "uid", uid, "err", err)
			a.running.Go(func() { a.sweep(ctx, uid, left[uid]) })
			continue
		}
		a.start(ctx, w, true)
	}
}

// orphans are the pods that have left something on this machine and that the API does not have.
func (a *Agent) orphans(pods map[types.UID]*v1.Pod, left map[types.UID][]container.Info) []types.UID {
	found := map[types.UID]bool{}
	for uid := range left {
		found[uid] = true
	}
	entries, err := os.ReadDir(a.shared.Root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		a.log.Warn("Reading the directory of pods failed", "err", err)
	}
	for _, e := range entries {
		found[types.UID(e.Name())] = true
	}
	var out []types.UID
	for uid := range found {
		if pods[uid] == nil {
			out = append(out, uid)
		}
	}
	return out
}

// sweepLogs removes the logs of pods that are not among uids.
func (a *Agent) sweepLogs(uids []string) {
	entries, err := os.ReadDir(a.shared.LogRoot)
	if err != nil {
		a.log.Warn("Reading the directory of logs failed", "err", err)
		return
	}
	for _, e := range entries {
		if uid := e.Name()[strings.LastIndexByte(e.Name(), '_')+1:]; slices.Contains(uids, uid) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(a.shared.LogRoot, e.Name())); err != nil {
			a.log.Warn("Removing old logs failed", "err", err)
		}
	}
}

// sweep removes at once what is left of a pod that nothing more is known about.
func (a *Agent) sweep(ctx context.Context, uid types.UID, left []container.Info) {
	for _, info := range left {
		if err := a.o.Runtime.Delete(ctx, info.ID); err != nil && !errors.Is(err, container.ErrNotFound) {
			a.log.Warn("Deleting a container failed", "container", info.ID, "err", err)
		}
	}
	if uid == "" {
		return // containers without a label; the directory of all pods is not theirs
	}
	if err := a.o.Sandboxes.Release(ctx, string(uid)); err != nil {
		a.log.Warn("Releasing a sandbox failed", "uid", uid, "err", err)
	}
	if err := volume.Remove(filepath.Join(a.shared.Root, string(uid))); err != nil {
		a.log.Warn("Removing the directory of a pod failed", "uid", uid, "err", err)
	}
}
