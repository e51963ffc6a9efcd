package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/api"
)

func testMetrics() []api.Metric {
	return []api.Metric{
		{Name: "peers", Help: "Connected peers.", Labels: []api.Label{{Name: "path", Value: "quic"}}, Value: 2},
		{Name: "peers", Help: "Connected peers.", Labels: []api.Label{{Name: "path", Value: "tcp"}}, Value: 1},
		{Name: "admission_total", Help: "Admissions.", Counter: true, Labels: []api.Label{{Name: "outcome", Value: "refused_proof"}}, Value: 5},
	}
}

func TestMetrics(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(testMetrics).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body := w.Body.String()
	if w.Code != http.StatusOK {
		t.Fatal(w.Code)
	}
	for _, want := range []string{
		`kairos_peers{path="quic"} 2`, `kairos_peers{path="tcp"} 1`,
		`kairos_admission_total{outcome="refused_proof"} 5`, "kairos_process_resident_memory_bytes ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in:\n%s", want, body)
		}
	}
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "kairos_") {
			t.Errorf("a foreign metric: %s", line)
		}
	}
}
