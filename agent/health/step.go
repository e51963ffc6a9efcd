package health

// Pending is a step that is under way; it is no failure.
type Pending struct {
	Reason string // one line: what is waited for
	Detail string // changes from turn to turn, so that it is shown and never logged
}

// Error implements error.
func (e *Pending) Error() string { return e.Reason }

// Problem is a failed step with the condition that it raises.
type Problem struct {
	Code   string
	Hint   string
	Detail string // as Pending's
	Err    error
}

// Error implements error.
func (e *Problem) Error() string { return e.Err.Error() }

// Unwrap gives errors.Is the cause.
func (e *Problem) Unwrap() error { return e.Err }
