package api

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metricsNamespace begins the name of every metric.
const metricsNamespace = "kairos"

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

// collector asks the overlay at every scrape, so that no room has to know Prometheus.
type collector struct{ metrics func() []Metric }

// Describe sends nothing: the collector is "unchecked", its metrics come and go with peers.
func (c collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c.metrics() {
		names, values := make([]string, len(m.Labels)), make([]string, len(m.Labels))
		for i, l := range m.Labels {
			names[i], values[i] = l.Name, l.Value
		}
		kind := prometheus.GaugeValue
		if m.Counter {
			kind = prometheus.CounterValue
		}
		desc := prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, "", m.Name), m.Help, names, nil)
		metric, err := prometheus.NewConstMetric(desc, kind, m.Value, values...)
		if err != nil {
			metric = prometheus.NewInvalidMetric(desc, err)
		}
		ch <- metric
	}
}

// metricsHandler serves an own registry: nothing that a library registers globally appears.
func metricsHandler(metrics func() []Metric) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{Namespace: metricsNamespace}))
	if metrics != nil {
		reg.MustRegister(collector{metrics})
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4, DisableCompression: true})
}
