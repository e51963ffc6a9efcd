package api

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

// K3s says which k3s runs: what it comes from, and the Kubernetes in it.
type K3s struct {
	Image      string `json:"image"`                // reference, with its digest where that is known
	Kubernetes string `json:"kubernetes,omitempty"` // v1.35.8+k3s1; "" where nothing says
}

// K3sOf is the k3s of an image. k3s' own have their version as tag, with - where a
// version has +.
func K3sOf(reference, digest string) K3s {
	name, pinned, _ := strings.Cut(reference, "@")
	k := K3s{Image: reference}
	if pinned == "" && digest != "" {
		k.Image += "@" + digest
	}
	tag := name[strings.LastIndexByte(name, ':')+1:]
	if _, _, ok := minor(tag); ok && tag != name {
		k.Kubernetes = strings.Replace(tag, "-", "+", 1)
	}
	return k
}

// String is what people call it.
func (k K3s) String() string {
	if k.Kubernetes != "" {
		return "Kubernetes " + k.Kubernetes
	}
	return "k3s of " + k.Image
}

// Step is what it means to run another k3s than before.
type Step uint8

// The steps. Kubernetes goes up by one minor version at a time, and what a minor version
// has written an earlier one must not read: https://kubernetes.io/releases/version-skew-policy.
const (
	StepUnknown Step = iota // nothing says which version one of the two is
	StepNone                // the same minor version, or the very same image
	StepUp                  // the next minor version
	StepFar                 // a later one, with others between
	StepDown                // an earlier one
)

// To is the step from one k3s to another.
func (k K3s) To(next K3s) Step {
	if k.Image == next.Image {
		return StepNone
	}
	major, was, known := minor(k.Kubernetes)
	nextMajor, will, ok := minor(next.Kubernetes)
	switch {
	case !known || !ok:
		return StepUnknown
	case major == nextMajor && will == was:
		return StepNone
	case major == nextMajor && will == was+1:
		return StepUp
	case cmp.Or(cmp.Compare(nextMajor, major), cmp.Compare(will, was)) > 0:
		return StepFar
	}
	return StepDown
}

// Before reports whether next is of a later minor version.
func (k K3s) Before(next K3s) bool {
	step := k.To(next)
	return step == StepUp || step == StepFar
}

// DataStep is the step that a server's data take to next, which ran has had: none where
// next has left the copy kept (nil: there is none), which is its way back.
func DataStep(ran K3s, kept *K3s, next K3s) Step {
	if kept != nil && kept.To(next) == StepNone {
		return StepNone
	}
	return ran.To(next)
}

var version = regexp.MustCompile(`^v(\d{1,6})\.(\d{1,6})\.\d`)

// minor returns the numbers that a version of Kubernetes begins with.
func minor(v string) (major, minor int, ok bool) {
	m := version.FindStringSubmatch(v)
	if m == nil {
		return 0, 0, false
	}
	major, err := strconv.Atoi(m[1])
	minor, err2 := strconv.Atoi(m[2])
	return major, minor, err == nil && err2 == nil
}
