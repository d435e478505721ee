package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// GCName is the name of the config map of revision garbage collection.
const GCName = "config-gc"

// Disabled is the value of a limit of GC that is switched off.
const Disabled = -1

// GC says which revisions that no Route uses are kept.
type GC struct {
	// RetainSinceCreateTime and RetainSinceLastActiveTime keep young and recently used revisions; Disabled keeps by that age forever.
	RetainSinceCreateTime     time.Duration
	RetainSinceLastActiveTime time.Duration
	// MinNonActiveRevisions are kept whatever their age.
	MinNonActiveRevisions int64
	// MaxNonActiveRevisions is the most that is kept, whatever the age; Disabled is no limit.
	MaxNonActiveRevisions int64
}

func defaultGC() *GC {
	return &GC{
		RetainSinceCreateTime: 48 * time.Hour, RetainSinceLastActiveTime: 15 * time.Hour,
		MinNonActiveRevisions: 20, MaxNonActiveRevisions: 1000,
	}
}

func parseGC(data map[string]string) (*GC, error) {
	g, v := defaultGC(), &values{data: data}
	v.int64(&g.MinNonActiveRevisions, "min-non-active-revisions")
	v.read([]string{"retain-since-create-time"}, durationOrDisabled(&g.RetainSinceCreateTime))
	v.read([]string{"retain-since-last-active-time"}, durationOrDisabled(&g.RetainSinceLastActiveTime))
	v.read([]string{"max-non-active-revisions"}, countOrDisabled(&g.MaxNonActiveRevisions))
	v.check(g.MinNonActiveRevisions >= 0, "min-non-active-revisions must be non-negative, was: %d", g.MinNonActiveRevisions)
	v.check(g.MaxNonActiveRevisions < 0 || g.MinNonActiveRevisions <= g.MaxNonActiveRevisions,
		"min-non-active-revisions(%d) must be <= max-non-active-revisions(%d)", g.MinNonActiveRevisions, g.MaxNonActiveRevisions)
	return g, v.err()
}

func countOrDisabled(target *int64) func(raw string) error {
	return func(raw string) error {
		raw = strings.TrimSpace(raw)
		switch {
		case raw == "":
			return nil
		case strings.EqualFold(raw, "disabled"):
			*target = Disabled
			return nil
		}
		n, err := strconv.ParseUint(raw, 10, 63)
		if err != nil {
			return err
		}
		*target = int64(min(n, math.MaxInt64))
		return nil
	}
}

func durationOrDisabled(target *time.Duration) func(raw string) error {
	return func(raw string) error {
		raw = strings.TrimSpace(raw)
		switch {
		case raw == "":
			return nil
		case strings.EqualFold(raw, "disabled"):
			*target = Disabled
			return nil
		}
		d, err := time.ParseDuration(raw)
		if err != nil {
			return err
		}
		if d < 0 {
			return errors.New("must be non-negative")
		}
		*target = d
		return nil
	}
}
