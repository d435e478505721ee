package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
)

// exampleKey holds the commented example that upstream's manifests ship in every map; it configures nothing.
const exampleKey = "_example"

// values reads typed values out of a config map's data and collects what is wrong with them, so that an administrator sees all
// mistakes at once. A method with several keys lets later ones win: the older spellings come first.
type values struct {
	data map[string]string
	errs []error
}

func (v *values) err() error { return errors.Join(v.errs...) }

// reject records a mistake that is not one of syntax.
func (v *values) reject(format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf(format, args...))
}

// check records a mistake unless ok.
func (v *values) check(ok bool, format string, args ...any) {
	if !ok {
		v.reject(format, args...)
	}
}

// read hands the value of each key that is present to parse.
func (v *values) read(keys []string, parse func(raw string) error) {
	for _, key := range keys {
		raw, ok := v.data[key]
		if !ok {
			continue
		}
		if err := parse(raw); err != nil {
			v.reject("parsing %q: %w", key, err)
		}
	}
}

// text trims blanks.
func (v *values) text(target *string, keys ...string) {
	v.read(keys, func(raw string) error { *target = strings.TrimSpace(raw); return nil })
}

func (v *values) bool(target *bool, keys ...string) {
	v.read(keys, func(raw string) (err error) { *target, err = strconv.ParseBool(raw); return err })
}

func (v *values) float(target *float64, keys ...string) {
	v.read(keys, func(raw string) (err error) { *target, err = strconv.ParseFloat(raw, 64); return err })
}

func (v *values) int32(target *int32, keys ...string) {
	v.read(keys, func(raw string) error {
		n, err := strconv.ParseInt(raw, 10, 32)
		*target = int32(n)
		return err
	})
}

func (v *values) int64(target *int64, keys ...string) {
	v.read(keys, func(raw string) (err error) { *target, err = strconv.ParseInt(raw, 10, 64); return err })
}

func (v *values) duration(target *time.Duration, keys ...string) {
	v.read(keys, func(raw string) (err error) { *target, err = time.ParseDuration(raw); return err })
}

// set splits at commas and trims blanks.
func (v *values) set(target *sets.Set[string], keys ...string) {
	v.read(keys, func(raw string) error {
		*target = sets.New[string]()
		for item := range strings.SplitSeq(raw, ",") {
			target.Insert(strings.TrimSpace(item))
		}
		return nil
	})
}

// quantity only checks: the keys that hold quantities size a sidecar that Weft does not have.
func (v *values) quantity(keys ...string) {
	v.read(keys, func(raw string) error {
		_, err := resource.ParseQuantity(raw)
		return err
	})
}

// oneOf accepts exactly the options.
func (v *values) oneOf(target *string, options []string, keys ...string) {
	v.read(keys, func(raw string) error {
		if *target = strings.TrimSpace(raw); !slices.Contains(options, *target) {
			return fmt.Errorf("%q is not one of %s", raw, strings.Join(options, ", "))
		}
		return nil
	})
}
