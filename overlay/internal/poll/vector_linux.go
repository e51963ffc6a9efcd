package poll

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Vectors describes parts to the kernel, in order, and returns how many entries of
// vectors that took: parts that adjoin in memory share one, since each costs the
// kernel time. vectors must have an entry for each part. Only the parts keep their
// memory alive, so the caller keeps those until the call is over.
func Vectors(vectors []unix.Iovec, parts [][]byte) int {
	n := 0
	end := uintptr(0) // of the last entry
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		begin := unsafe.Pointer(unsafe.SliceData(p))
		if n > 0 && uintptr(begin) == end {
			vectors[n-1].SetLen(int(vectors[n-1].Len) + len(p))
		} else {
			vectors[n].Base = (*byte)(begin)
			vectors[n].SetLen(len(p))
			n++
		}
		end = uintptr(begin) + uintptr(len(p))
	}
	return n
}
