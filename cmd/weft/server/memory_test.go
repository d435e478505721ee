package server

import "testing"

func TestReclaimIsDue(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, tc := range []struct {
		name      string
		last, now usage
		floor     uint64
		want      bool
	}{
		{"idle and small", usage{200 * mib, 0}, usage{210 * mib, 10 * mib}, 200 * mib, false},
		{"idle after a burst", usage{700 * mib, 0}, usage{700 * mib, 10 * mib}, 200 * mib, true},
		{"in a burst", usage{500 * mib, 0}, usage{700 * mib, 400 * mib}, 200 * mib, false},
		{"grown slowly", usage{260 * mib, 0}, usage{265 * mib, 10 * mib}, 200 * mib, true},
	} {
		if got := due(tc.last, tc.now, tc.floor); got != tc.want {
			t.Errorf("%s: due is %t, want %t", tc.name, got, tc.want)
		}
	}
	if u := readUsage(); u.mapped == 0 || u.allocated == 0 {
		t.Errorf("the runtime's usage is %+v, want figures", u)
	}
}
