package kpa

import (
	"testing"
	"time"

	"github.com/weft-dev/weft/autoscaler/settings"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		from, to int32
		d        Decision
		cause    Cause
		change   func(*settings.Settings)
		want     string
	}{
		{name: "wake", to: 1, d: Decision{Sample: Sample{Waiting: 1}}, want: "Scaled from 0 to 1: 1 request is waiting and no instance runs"},
		{name: "wake by many", to: 4, d: Decision{Sample: Sample{Waiting: 35}}, want: "Scaled from 0 to 4: 35 requests are waiting and no instance runs"},
		{
			name: "wake with activation-scale", to: 3, d: Decision{Sample: Sample{Waiting: 1}, Activated: true}, change: func(c *settings.Settings) { c.ActivationScale = 3 },
			want: "Scaled from 0 to 3: 1 request is waiting and no instance runs, and activation-scale is 3",
		},
		{name: "idle", from: 3, cause: Idle, want: "Scaled from 3 to 0: no request for 60s"},
		{
			name: "idle and unreachable", from: 1, cause: Idle, change: func(c *settings.Settings) { c.Unreachable = true },
			want: "Scaled from 1 to 0: no request for 60s, and no route leads to the revision",
		},
		{name: "failed", from: 1, cause: TimedOut, want: "Scaled from 1 to 0: no instance became ready within 10m30s"},
		{name: "min-scale", from: 1, to: 2, cause: ByMinScale, change: func(c *settings.Settings) { c.MinScale = 2 }, want: "Scaled from 1 to 2: min-scale is 2"},
		{name: "initial-scale", from: 1, to: 3, cause: ByInitialScale, change: func(c *settings.Settings) { c.InitialScale = 3 }, want: "Scaled from 1 to 3: initial-scale is 3"},
		{name: "first instance", to: 1, cause: Holding, want: "Scaled from 0 to 1: initial-scale is 1"},
		{
			name: "last instance", from: 3, to: 1, cause: Holding,
			want: "Scaled from 3 to 1: no request now, and the last instance stays until there was none for 60s",
		},
		{name: "zero is not permitted", from: 2, to: 1, cause: ByNoZero, want: "Scaled from 2 to 1: no request, and enable-scale-to-zero is false"},
		{
			name: "max-scale", from: 2, to: 4, cause: ByMaxScale, d: Decision{Sample: Sample{Stable: 61.234}}, change: func(c *settings.Settings) { c.MaxScale = 4 },
			want: "Scaled from 2 to 4: max-scale is 4, and 61.23 requests at a time on average over the last 60s, 10 per instance is the target",
		},
		{
			name: "panic", from: 1, to: 4, d: Decision{Panic: true, Sample: Sample{Stable: 5, Panic: 38}},
			want: "Scaled from 1 to 4: 38 requests at a time on average over the last 6s, 10 per instance is the target",
		},
		{
			name: "requests per second", from: 4, to: 3, d: Decision{Sample: Sample{Stable: 21.5}}, change: func(c *settings.Settings) { c.Metric, c.StableWindow = "rps", 5*time.Minute },
			want: "Scaled from 4 to 3: 21.5 requests per second on average over the last 5m0s, 10 per instance is the target",
		},
		{
			name: "limited", from: 1, to: 2, d: Decision{Limited: true, Sample: Sample{Stable: 90}}, change: func(c *settings.Settings) { c.MaxScaleUpRate = 2 },
			want: "Scaled from 1 to 2: 90 requests at a time on average over the last 60s, 10 per instance is the target; one step goes at most to 2 times the ready instances",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := standard()
			if tt.change != nil {
				tt.change(&c)
			}
			if got := Explain(tt.from, tt.to, tt.d, Plan{Cause: tt.cause}, c); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}
