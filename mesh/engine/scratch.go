package engine

import "unsafe"

// scratchSize fits what the filters make for a usual request.
const scratchSize = 512

// Scratch returns an empty slice to make a text in, which Keep then turns into a string. Only one can be made at a time.
func (x *Exchange) Scratch() []byte {
	if x.scratch == nil {
		x.scratch = make([]byte, 0, scratchSize)
	}
	return x.scratch[len(x.scratch):]
}

// Keep makes what was appended to Scratch a string that holds as long as the exchange, without a copy.
func (x *Exchange) Keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if have := len(x.scratch); have+len(b) <= cap(x.scratch) && unsafe.SliceData(b) == unsafe.SliceData(x.scratch[have:cap(x.scratch)]) { //nolint:gosec // only compared
		x.scratch = x.scratch[:have+len(b)]
	}
	return unsafe.String(&b[0], len(b)) //nolint:gosec // nobody writes there until the exchange is reset
}
