package engine

import "sync"

// Sizes of buffers. A connection holds one only while there is something in it.
const (
	// headBuffer fits the head of nearly every request and of many responses with their body.
	headBuffer = 8 << 10
	// copyBuffer is for bodies.
	copyBuffer = 32 << 10
)

// headBuffers and copyBuffers lend buffers. A pool is the one kind of package state that carries no meaning.
var (
	headBuffers = sync.Pool{New: func() any { return new([headBuffer]byte) }}
	copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}
)

func lendHead() *[headBuffer]byte {
	b, _ := headBuffers.Get().(*[headBuffer]byte)
	return b
}

func lendCopy() *[copyBuffer]byte {
	b, _ := copyBuffers.Get().(*[copyBuffer]byte)
	return b
}

// giveBack returns what was lent. A buffer that grew beyond its kind is left to the garbage collector.
func giveBack(b []byte) {
	switch len(b) {
	case headBuffer:
		headBuffers.Put((*[headBuffer]byte)(b))
	case copyBuffer:
		copyBuffers.Put((*[copyBuffer]byte)(b))
	}
}
