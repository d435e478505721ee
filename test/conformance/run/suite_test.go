package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const events = `{"Action":"start"}
{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"run","Test":"TestB"}
{"Action":"run","Test":"TestA/sub"}
{"Action":"output","Test":"TestA/sub","Output":"wrong\n"}
{"Action":"fail","Test":"TestA/sub","Elapsed":0.5}
{"Action":"fail","Test":"TestA","Elapsed":1.5}
{"Action":"skip","Test":"TestB","Elapsed":0}
{"Action":"run","Test":"TestC"}
{"Action":"pass","Test":"TestC","Elapsed":2}
{"Action":"run","Test":"TestD"}
{"Action":"fail","Elapsed":3}
`

func TestFollow(t *testing.T) {
	t.Parallel()
	var r suiteResult
	var ended []string
	if err := r.follow(strings.NewReader(events), func(t *testResult) { ended = append(ended, t.name) }); err != nil {
		t.Fatal(err)
	}
	got := map[string]outcome{}
	for _, test := range r.tests {
		got[test.name] = test.outcome
	}
	want := map[string]outcome{"TestA": failed, "TestA/sub": failed, "TestB": skipped, "TestC": passed, "TestD": unfinished}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"TestA/sub", "TestA", "TestB", "TestC"}, ended); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
	if out := r.tests[2].output.String(); r.tests[2].name != "TestA/sub" || out != "wrong\n" {
		t.Errorf("output of %s: %q", r.tests[2].name, out)
	}
	if r.count("") != 4 || r.count(failed) != 1 {
		t.Errorf("counted %d tests and %d failures, want 4 and 1 without subtests", r.count(""), r.count(failed))
	}
}

func TestFollowBrokenStream(t *testing.T) {
	t.Parallel()
	var r suiteResult
	if err := r.follow(strings.NewReader("{\"Action\":\"run\",\"Test\":\"TestA\"}\npanic: no JSON\n"), func(*testResult) {}); err == nil {
		t.Error("text between the events was taken as an event")
	}
}

func TestExactly(t *testing.T) {
	t.Parallel()
	if got, want := exactly([]string{"TestA", "TestB/sub"}), "^TestA$|^TestB$/^sub$"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := exactly(nil); got != "" {
		t.Errorf("got %q for no names, want none", got)
	}
}

func TestPassed(t *testing.T) {
	t.Parallel()
	known := reasons{skips: map[string]string{"TestKnown": "not for us"}}
	for _, tt := range []struct {
		name  string
		total int
		tests []*testResult
		want  bool
	}{
		{name: "all", total: 2, tests: []*testResult{{name: "TestA", outcome: passed}, {name: "TestB", outcome: passed}, {name: "TestB/sub", outcome: passed}}, want: true},
		{name: "known skip", total: 1, tests: []*testResult{{name: "TestKnown", outcome: skipped}}, want: true},
		{name: "unknown skip", total: 1, tests: []*testResult{{name: "TestA", outcome: skipped}}},
		{name: "unknown skip of a subtest", total: 1, tests: []*testResult{{name: "TestA", outcome: passed}, {name: "TestA/sub", outcome: skipped}}},
		{name: "failure", total: 1, tests: []*testResult{{name: "TestA", outcome: failed}}},
		{name: "not finished", total: 1, tests: []*testResult{{name: "TestA", outcome: unfinished}}},
		{name: "one never ran", total: 2, tests: []*testResult{{name: "TestA", outcome: passed}}},
		{name: "nothing ran", total: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := (suiteResult{total: tt.total, tests: tt.tests}).passed(known); got != tt.want {
				t.Errorf("passed: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestReadReasons(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.md")
	text := "# Page\n\n| TestElsewhere | in no table of ours |\n\n" + skipsHeading + "\n\n| test | why |\n|---|---|\n| TestA/sub | needs a thing |\n\n" +
		leftOutHeading + "\n\n| test | why |\n|---|---|\n| TestB, TestC | look inside |\n\n## More\n\n| TestD | other |\n"
	if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readReasons(page)
	if err != nil {
		t.Fatal(err)
	}
	want := reasons{skips: map[string]string{"TestA/sub": "needs a thing"}, leftOut: []string{"TestB", "TestC"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(reasons{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
