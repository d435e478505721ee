package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// rolloutSeen is what a rollout showed, in the order in which it happened.
type rolloutSeen struct {
	shares     []int64 // of the newest revision
	tagShares  int     // requests to the tag's host that the newest revision answered while it was not alone
	inProgress bool
	failures   []string
}

// watchRollout polls a service until its newest revision has everything.
func (u *user) watchRollout(name, newest string, limit time.Duration) rolloutSeen {
	u.Helper()
	var seen rolloutSeen
	u.wait(limit, newest+" has all traffic of "+name, func() error {
		s, err := u.load(name)
		if err != nil {
			return err
		}
		var main []servingv1.TrafficTarget
		for i := range s.Status.Traffic {
			if s.Status.Traffic[i].Tag == "" {
				main = append(main, s.Status.Traffic[i])
			}
		}
		last := main[len(main)-1]
		if last.RevisionName != newest {
			return fmt.Errorf("traffic is %v", main)
		}
		switch len(main) {
		case 1:
			if !s.IsReady() {
				return errors.New("all traffic has moved, and the service is not ready: " + conditions(s))
			}
			return nil
		case 2:
		default:
			seen.failures = append(seen.failures, fmt.Sprintf("%d entries in status.traffic: %v", len(main), main))
		}
		if c := s.Status.GetCondition(servingv1.ServiceConditionRoutesReady); c.GetReason() == "RolloutInProgress" {
			seen.inProgress = true
		} else if c.IsTrue() {
			seen.failures = append(seen.failures, "RoutesReady is True in the middle of the rollout")
		}
		if len(seen.shares) == 0 || seen.shares[len(seen.shares)-1] != *last.Percent {
			seen.shares = append(seen.shares, *last.Percent)
		}
		if to := tagURL(s, "next"); to != nil && *last.Percent < 60 {
			if a, err := u.get(to, "/"); err == nil && strings.HasPrefix(a.body, newest) {
				seen.tagShares++
			}
		}
		return fmt.Errorf("%s has %d %%", newest, *last.Percent)
	})
	for i := 1; i < len(seen.shares); i++ {
		if seen.shares[i] < seen.shares[i-1] {
			seen.failures = append(seen.failures, fmt.Sprintf("the share of the new revision went back: %v", seen.shares))
			break
		}
	}
	return seen
}

func rolloutDuration(d string) option {
	return func(s *servingv1.Service) { s.Annotations = map[string]string{serving.RolloutDurationKey: d} }
}

func TestGradualRollout(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("gradual", env("VERSION", "one"), rolloutDuration("12s"), annotate("min-scale", "1"),
		split(target("", 100, ""), target("", 0, "next")))
	flow := u.send(1, s.Status.URL, "/")
	flow.waitSent(u, 20)
	u.update("gradual", version("two"))
	seen := u.watchRollout("gradual", "gradual-00002", 40*time.Second)
	sent, failed := flow.end()
	for _, f := range append(seen.failures, failed...) {
		t.Error(f)
	}
	t.Logf("%d requests; shares of the new revision: %v, %d of its answers at the tag's host", sent, seen.shares, seen.tagShares)
	// How many steps there are depends on how long the first percent took.
	if len(seen.shares) < 2 || seen.shares[0] != 1 || !seen.inProgress {
		t.Errorf("shares %v, RolloutInProgress %v: want steps from 1 %% on, and to be told", seen.shares, seen.inProgress)
	}
	if seen.tagShares == 0 {
		t.Error("the host of the tag showed nothing of the new revision in the middle of the rollout")
	}
	u.waitAnswer(tagURL(s, "next"), http.StatusOK, "gradual-00002 two")
}

// TestRolloutOfARolloutAndBack changes the mind of a rollout in its middle.
func TestRolloutOfARolloutAndBack(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("mind", env("VERSION", "one"), rolloutDuration("60s"), annotate("min-scale", "1"))
	flow := u.send(1, s.Status.URL, "/")
	has := func(want ...string) func() error {
		return func() error {
			s, err := u.load("mind")
			if err != nil {
				return err
			}
			var got []string
			for i := range s.Status.Traffic {
				got = append(got, s.Status.Traffic[i].RevisionName)
			}
			if strings.Join(got, " ") != strings.Join(want, " ") {
				return fmt.Errorf("traffic %v, conditions %s", got, conditions(s))
			}
			return nil
		}
	}
	u.update("mind", version("two"))
	u.wait(30*time.Second, "the rollout has begun", has("mind-00001", "mind-00002"))
	u.update("mind", version("three"))
	u.wait(30*time.Second, "a newer revision is rolled out in the middle of it", func() error {
		// The first step of the second rollout may have taken the last percent of the second revision.
		if err := has("mind-00001", "mind-00002", "mind-00003")(); err == nil {
			return nil
		}
		return has("mind-00001", "mind-00003")()
	})
	// Back to the first at once: nobody waits for an outage to be rolled back.
	s = u.change("mind", split(target("mind-00001", 100, "")))
	if err := has("mind-00001")(); err != nil {
		t.Errorf("after the rollback: %v", err)
	}
	u.waitAnswer(s.Status.URL, http.StatusOK, "mind-00001 one")
	// And on without a rollout.
	u.change("mind", split(target("", 100, "")), func(s *servingv1.Service) { s.Annotations[serving.RolloutDurationKey] = "0s" })
	u.waitAnswer(s.Status.URL, http.StatusOK, "mind-00003 three")
	if _, failures := flow.end(); len(failures) > 0 {
		t.Errorf("%d requests failed, the first: %s", len(failures), failures[0])
	}
}

// TestRolloutSurvivesACrash kills the control plane in the middle of a rollout, so it is not parallel.
func TestRolloutSurvivesACrash(t *testing.T) {
	u := newUser(t, shared)
	s := u.deploy("crashed", env("VERSION", "one"), rolloutDuration("20s"), annotate("min-scale", "1"))
	flow := u.send(1, s.Status.URL, "/")
	u.update("crashed", version("two"))
	var share int64
	u.wait(60*time.Second, "the rollout is on its way", func() error {
		s, err := u.load("crashed")
		if err != nil {
			return err
		}
		last := s.Status.Traffic[len(s.Status.Traffic)-1]
		if share = *last.Percent; last.RevisionName != "crashed-00002" || share < 5 {
			return fmt.Errorf("%s has %d %%", last.RevisionName, share)
		}
		return nil
	})
	if err := shared.Kill(); err != nil {
		t.Fatal(err)
	}
	flow.waitSent(u, 20)
	if err := shared.Run(); err != nil {
		t.Fatal(err)
	}
	seen := u.watchRollout("crashed", "crashed-00002", 90*time.Second)
	t.Logf("%d %% before the crash, then %v", share, seen.shares)
	if len(seen.shares) < 2 || seen.shares[0] < share || seen.shares[0] > share+30 {
		t.Errorf("after the crash at %d %% the shares are %v, want the rollout to go on where it was", share, seen.shares)
	}
	for _, f := range seen.failures {
		t.Error(f)
	}
	if sent, failures := flow.end(); len(failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(failures), sent, failures[0])
	}
}
