package api

// Metric is one value at the time of a scrape. All metrics of one name must
// have the same help, kind and label names.
type Metric struct {
	Name    string // without the "kairos_" prefix, as Prometheus names it: admission_refused_total
	Help    string
	Counter bool // else a gauge
	Labels  []Label
	Value   float64
}

// Label is one label of a Metric.
type Label struct{ Name, Value string }
