package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The tests in this file stop parts of the shared platform; they are not parallel, so they run before the parallel ones.

func TestCrashOfTheProxy(t *testing.T) {
	u := newUser(t, shared)
	s := u.deploy("survivor", annotate("window", "6s"))
	u.mustGet(s.Status.URL, "/")
	old := u.proxyPID()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	u.wait(5*time.Second, "a new proxy answers", func() error {
		if a, err := u.get(s.Status.URL, "/"); err != nil || a.status != http.StatusOK {
			return answered(a, err)
		}
		return nil
	})
	if got := u.proxyPID(); got == old {
		t.Errorf("the proxy still has pid %d", got)
	}
}

func TestCrashOfWeft(t *testing.T) {
	u := newUser(t, shared)
	// Out of the reach of scale to zero, so that the same container must be found again.
	s := u.deploy("adopted", annotate("min-scale", "1"))
	cold := u.deploy("cold", annotate("window", "6s"))
	u.waitZero("cold")
	before := u.pods("adopted")
	if len(before) != 1 {
		t.Fatalf("%d pods before the crash, want 1", len(before))
	}
	proxy := u.proxyPID()
	flow := u.send(4, s.Status.URL, "/")
	flow.waitSent(u, 100)

	if err := shared.Kill(); err != nil {
		t.Fatal(err)
	}
	flow.waitSent(u, 200)
	parked := make(chan answer, 1)
	go func() {
		a, err := u.get(cold.Status.URL, "/")
		if err != nil {
			a.body = err.Error()
		}
		parked <- a
	}()
	if err := shared.Run(); err != nil {
		t.Fatal(err)
	}
	if a := <-parked; a.status != http.StatusOK {
		t.Errorf("the request that was parked while weft was dead ended with %d %q, want 200", a.status, a.body)
	}
	flow.waitSent(u, 200)
	if sent, failures := flow.end(); len(failures) > 0 {
		t.Errorf("%d of %d requests failed while weft was killed and started, the first: %s", len(failures), sent, failures[0])
	}

	if got := u.proxyPID(); got != proxy {
		t.Errorf("the proxy has pid %d, want %d: it was restarted, not adopted", got, proxy)
	}
	after := u.pods("adopted")
	if len(after) != 1 || after[0].UID != before[0].UID {
		t.Fatalf("pods after the crash are %v, want the one from before", after)
	}
	was, is := before[0].Status.ContainerStatuses[0], after[0].Status.ContainerStatuses[0]
	if is.ContainerID != was.ContainerID || is.RestartCount != was.RestartCount || !is.Ready {
		t.Errorf("the container was %s with %d restarts, is %s with %d, ready %t", was.ContainerID, was.RestartCount, is.ContainerID, is.RestartCount, is.Ready)
	}
	if out := u.kubectl("logs", before[0].Name); !strings.Contains(out, "listening on") {
		t.Errorf("the log from before the crash is gone: %q", out)
	}
}

func TestCrashOfAContainer(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("fragile", annotate("min-scale", "1"))
	// POST, because the proxy sends an idempotent request that got no answer once more.
	_, _ = u.do(t.Context(), http.MethodPost, s.Status.URL, "/exit?code=3", nil)
	u.wait(30*time.Second, "the container is restarted", func() error {
		pods := u.pods("fragile")
		if len(pods) != 1 || len(pods[0].Status.ContainerStatuses) != 1 {
			return fmt.Errorf("%d pods", len(pods))
		}
		c := pods[0].Status.ContainerStatuses[0]
		if c.RestartCount != 1 || !c.Ready {
			return fmt.Errorf("%d restarts, ready %t", c.RestartCount, c.Ready)
		}
		last := c.LastTerminationState.Terminated
		if last == nil || last.ExitCode != 3 || last.Reason != "Error" {
			return fmt.Errorf("last state %+v, want exit code 3 with reason Error", last)
		}
		return nil
	})
	u.mustGet(s.Status.URL, "/")
}

func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.service("hungry", annotate("min-scale", "1"))
	s.Spec.Template.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: quantity("64Mi")}}
	if err := u.Kube.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s = u.waitReady("hungry")
	_, _ = u.get(s.Status.URL, "/memory?mib=200")
	u.wait(30*time.Second, "the container is killed for its memory", func() error {
		for _, pod := range u.pods("hungry") {
			for _, c := range pod.Status.ContainerStatuses {
				if last := c.LastTerminationState.Terminated; last != nil && last.Reason == "OOMKilled" && last.ExitCode == 137 {
					return nil
				}
				if now := c.State.Terminated; now != nil && now.Reason == "OOMKilled" {
					return nil
				}
			}
		}
		return fmt.Errorf("no OOMKilled in %d pods", len(u.pods("hungry")))
	})
}
