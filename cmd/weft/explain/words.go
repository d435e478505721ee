package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"knative.dev/pkg/apis"
)

// of makes a link from a condition; well is what it says when the condition is true.
func of(kind, name string, c *apis.Condition, well string) Link {
	l := Link{Kind: kind, Name: name, State: Waiting, Says: "nothing has been reported yet"}
	if c == nil {
		return l
	}
	l.Since = c.LastTransitionTime.Inner.Time
	switch c.Status {
	case corev1.ConditionTrue:
		l.State, l.Says = OK, well
		return l
	case corev1.ConditionFalse:
		l.State = Broken
	case corev1.ConditionUnknown:
	}
	l.Says = said(c.Reason, c.Message)
	return l
}

// said joins a reason and a message to one line.
func said(reason, message string) string {
	message = oneLine(message)
	switch {
	case message == "" && reason == "":
		return "no reason is given"
	case message == "":
		return reason
	case reason == "":
		return message
	}
	return reason + ": " + message
}

// oneLine makes one line of a message that may have several.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// short writes a time span as kubectl does, in its two largest units.
func short(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	days, hours, minutes, seconds := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60, int(d.Seconds())%60
	parts := []struct {
		n    int
		unit string
	}{{days, "d"}, {hours, "h"}, {minutes, "m"}, {seconds, "s"}}
	first := slices.IndexFunc(parts, func(p struct {
		n    int
		unit string
	},
	) bool {
		return p.n > 0
	})
	if first < 0 {
		return "0s"
	}
	var out strings.Builder
	for _, p := range parts[first:min(first+2, len(parts))] {
		if p.n > 0 {
			out.WriteString(strconv.Itoa(p.n) + p.unit)
		}
	}
	return out.String()
}

// span writes a setting the way users write it in annotations: 60s, 10m, 48h.
func span(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d >= 2*time.Minute && d%time.Minute == 0:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d%time.Second == 0:
		return strconv.Itoa(int(d/time.Second)) + "s"
	}
	return d.String()
}

// number writes a load with at most two decimals.
func number(f float64) string { return strconv.FormatFloat(float64(int64(f*100+0.5))/100, 'f', -1, 64) }

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// lastLines are the last n lines of a text that are not empty.
func lastLines(text string, n int) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, " \r\n\t"); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}

func quoted(names []string) string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = fmt.Sprintf("%q", name)
	}
	return strings.Join(out, ", ")
}

// nearest is the name that was most likely meant, or empty when none is near.
func nearest(name string, others []string) string {
	best, least := "", max(2, len(name)/3)+1
	for _, other := range others {
		if d := distance(name, other); d < least {
			best, least = other, d
		}
	}
	return best
}

// distance is the number of letters to insert, remove or replace that make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			previous, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, previous+cost)
		}
	}
	return row[len(b)]
}
