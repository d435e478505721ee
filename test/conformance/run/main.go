// Command run runs the conformance suites of Knative Serving, as published, against a platform of its own. `make conformance-serving`
// calls it. It builds the suites and their images from the module that the go.mod beside it pins, starts `weft up`, serves the images
// from a registry on loopback, runs the suites and removes everything again. It fails when a test fails, or is skipped without a
// reason in docs/conformance.md.
//
// It must be run in test/conformance, and knows Weft only by its binaries and its API, as any user does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	// bin has the binaries under test, cache what is built of the module.
	bin, cache string
	// reasons is the page that explains skips, results the page to write; no page is written when it is empty.
	reasons, results string
	// suite is a part of the paths of the suites to run, and run the regular expression of the tests to run; all when empty.
	suite, run string
	// e2e adds the end-to-end tests.
	e2e bool
	// platform says how to start it.
	platform platformOptions
}

func parseOptions() options {
	var o options
	flag.StringVar(&o.bin, "bin", "../../bin", "directory of the weft binaries under test")
	flag.StringVar(&o.cache, "cache", "../../dist/conformance", "directory for the suites and images that were built")
	flag.StringVar(&o.reasons, "reasons", "../../docs/conformance.md", "page that says which tests may be skipped or left out, and why")
	flag.StringVar(&o.results, "results", "", "page to write the results to (default none)")
	flag.StringVar(&o.suite, "suite", "", "part of the path of the suites to run (default all)")
	flag.StringVar(&o.run, "run", "", "regular expression of the tests to run (default all)")
	flag.BoolVar(&o.e2e, "e2e", false, "also run upstream's end-to-end tests that the page of reasons does not leave out")
	flag.StringVar(&o.platform.name, "name", "conform", "name of the platform that is started")
	flag.StringVar(&o.platform.address, "address", "127.0.8.1", "address of the gateway, whose port 80 must be free")
	flag.StringVar(&o.platform.podCIDR, "pod-cidr", "10.231.0.0/16", "network of the pods")
	flag.StringVar(&o.platform.serviceCIDR, "service-cidr", "10.232.0.0/16", "network of the cluster IPs")
	flag.Parse()
	return o
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, parseOptions())
	stop()
	progressEnd()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	start := time.Now()
	for _, dir := range []*string{&o.bin, &o.cache} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	allowed, err := readReasons(o.reasons)
	if err != nil {
		return err
	}
	suites := o.suites(allowed)
	b, err := build(ctx, o, suites)
	if err != nil {
		return err
	}
	registry, err := serveImages(ctx, b.images)
	if err != nil {
		return err
	}
	defer registry.Close()
	p, err := startPlatform(ctx, o.bin, o.platform)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.destroy()) }()
	if err := p.prepare(ctx, b.module); err != nil {
		return err
	}
	out, err := runSuites(ctx, suites, b, p, registry.host, o.run)
	out.took, out.module, out.weft = time.Since(start), b.version, output(ctx, filepath.Join(o.bin, "weft"), "--version")
	out.print(os.Stdout, allowed)
	if err != nil {
		return err
	}
	if o.results != "" && o.run == "" && o.suite == "" {
		if err := out.write(ctx, o.results); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(out.results, func(r suiteResult) bool { return !r.passed(allowed) }) {
		p.keepLogs(o.cache)
		return errors.New("not every test passed")
	}
	return nil
}

// suites are those that the flags ask for.
func (o options) suites(allowed reasons) []suite {
	suites := conformanceSuites()
	if o.e2e {
		suites = append(suites, endToEndSuite(allowed.leftOut))
	}
	return slices.DeleteFunc(suites, func(s suite) bool { return !strings.Contains(s.path, o.suite) })
}

// runSuites runs one suite after the other. The report has what is known also when that ends early.
func runSuites(ctx context.Context, suites []suite, b built, p *platform, registry, expression string) (report, error) {
	var out report
	for _, s := range suites {
		r, err := s.run(ctx, b, p, registry, expression)
		out.results = append(out.results, r)
		if err != nil {
			return out, err
		}
	}
	return out, nil
}
