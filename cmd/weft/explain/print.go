package explain

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes a report for people. The links are shown when something is wrong, or when all is set.
func (r Report) Print(out io.Writer, now time.Time, all bool) error {
	var b strings.Builder
	fmt.Fprintln(&b, r.Summary)
	if r.Where != "" {
		where := "at " + r.Where
		if !r.Since.IsZero() {
			where += ", for " + short(now.Sub(r.Since))
		}
		fmt.Fprintln(&b, "  "+where)
	}
	for _, line := range r.Details {
		fmt.Fprintln(&b, "  "+line)
	}
	for _, line := range r.Facts {
		fmt.Fprintln(&b, "  "+line)
	}
	if len(r.Next) > 0 {
		fmt.Fprintln(&b, "next:")
		for _, line := range r.Next {
			fmt.Fprintln(&b, "  "+line)
		}
	}
	if r.State != OK || all {
		fmt.Fprintln(&b)
		r.table(&b, now)
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// table writes the chain, one link per line.
func (r Report) table(b *strings.Builder, now time.Time) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "STATE\tFOR\tLINK\tSAYS")
	for i := range r.Links {
		l := &r.Links[i]
		since := "-"
		if !l.Since.IsZero() {
			since = short(now.Sub(l.Since))
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s/%s\t%s\n", l.State, since, l.Kind, l.Name, cut(l.Says))
		if l.Kind == "PodAutoscaler" {
			for _, line := range l.Details {
				_, _ = fmt.Fprintf(w, "\t\t\t%s\n", line)
			}
		}
	}
	// A strings.Builder takes everything.
	_ = w.Flush()
}

// cut keeps a line of the table readable; the whole text is at its link in JSON.
func cut(s string) string {
	const most = 160
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most-3]) + "..."
	}
	return s
}
