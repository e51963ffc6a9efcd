// Package metrics shows an overlay to Prometheus. Daemons serve it; a person's
// program does without, and without all that it brings.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kairos-io/kairos/overlay/api"
)

// namespace begins the name of every metric.
const namespace = "kairos"

// collector asks the overlay at every scrape, so that no room has to know Prometheus.
type collector struct{ metrics func() []api.Metric }

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
		desc := prometheus.NewDesc(prometheus.BuildFQName(namespace, "", m.Name), m.Help, names, nil)
		metric, err := prometheus.NewConstMetric(desc, kind, m.Value, values...)
		if err != nil {
			metric = prometheus.NewInvalidMetric(desc, err)
		}
		ch <- metric
	}
}

// Handler serves what metrics returns, at every scrape, and what the process takes. It
// has a registry of its own: nothing that a library registers globally appears.
func Handler(metrics func() []api.Metric) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{Namespace: namespace}))
	reg.MustRegister(collector{metrics})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4, DisableCompression: true})
}
