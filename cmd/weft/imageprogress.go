package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/weft-dev/weft/node/image"
)

// progressPrinter shows the progress of images: one line that is rewritten on a terminal, and else one line per layer, which is what
// a log wants.
type progressPrinter struct {
	w        io.Writer
	terminal bool
	// layers is how many layers the last plain line told of.
	layers int
	// open says that the terminal's line has no end yet.
	open bool
}

func newProgressPrinter(w io.Writer) *progressPrinter {
	f, ok := w.(*os.File)
	return &progressPrinter{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// step returns the callback for one image. Errors of writing progress are of no interest.
func (p *progressPrinter) step(what string) func(image.Progress) {
	return func(at image.Progress) {
		text := fmt.Sprintf("%s: %d/%d layers", what, at.Layers, at.TotalLayers)
		if at.TotalBytes > 0 {
			text += fmt.Sprintf(", %s of %s", bytesText(at.Bytes), bytesText(at.TotalBytes))
		}
		if p.terminal {
			p.open = true
			_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s", text)
			return
		}
		if at.Layers > p.layers {
			p.layers = at.Layers
			_, _ = fmt.Fprintln(p.w, text)
		}
	}
}

// end clears the terminal's line, so that the result stands alone.
func (p *progressPrinter) end() {
	if p.open {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.open, p.layers = false, 0
}

// shortID is the part of an image ID that people copy.
func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}

// bytesText writes a size as docker does: decimal, three digits.
func bytesText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v /= 1000
		i++
	}
	return fmt.Sprintf("%.3g %s", v, units[i])
}

// roundTime drops digits that nobody reads.
func roundTime(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}

// ageText writes an age in its largest unit, as kubectl does.
func ageText(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(max(d, 0).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
