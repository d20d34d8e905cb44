package serve

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/criteria-go/criteria"
)

// metrics is what /metrics shows. It has a registry of its own: nothing is
// registered globally.
type metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	truncated prometheus.Counter
	positive  prometheus.Counter
}

func newMetrics(stats func() map[string]criteria.Stats) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "criteria_http_requests_total", Help: "Requests by path and status.",
		}, []string{"path", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "criteria_http_request_duration_seconds", Help: "Time from a request to its answer, by path.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"path"}),
		truncated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "criteria_truncated_pairs_total", Help: "Answered pairs that were longer than the model reads.",
		}),
		positive: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "criteria_positive_pairs_total", Help: "Answered pairs whose label is true.",
		}),
	}
	m.registry.MustRegister(
		m.requests, m.seconds, m.truncated, m.positive,
		models(stats),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// models collects the counters of all models, which have the label model.
type models func() map[string]criteria.Stats

// ofModel are the metrics of a model.
var ofModel = []struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(criteria.Stats) float64
}{
	{modelDesc("criteria_pairs_total", "Pairs that were computed."), prometheus.CounterValue,
		func(s criteria.Stats) float64 { return float64(s.Pairs) }},
	{modelDesc("criteria_batches_total", "Batches in which they were computed."), prometheus.CounterValue,
		func(s criteria.Stats) float64 { return float64(s.Batches) }},
	{modelDesc("criteria_refused_calls_total", "Calls refused because the queue was full."), prometheus.CounterValue,
		func(s criteria.Stats) float64 { return float64(s.Refused) }},
	{modelDesc("criteria_queue_pairs", "Pairs that wait to be computed."), prometheus.GaugeValue,
		func(s criteria.Stats) float64 { return float64(s.Waiting) }},
}

func modelDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"model"}, nil)
}

// Describe implements [prometheus.Collector].
func (models) Describe(to chan<- *prometheus.Desc) {
	for _, m := range ofModel {
		to <- m.desc
	}
}

// Collect implements [prometheus.Collector].
func (stats models) Collect(to chan<- prometheus.Metric) {
	for name, s := range stats() {
		for _, m := range ofModel {
			to <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(s), name)
		}
	}
}

// show answers /metrics.
func (m *metrics) show(*http.Request) (answer, error) {
	// What can be collected is shown, also if something cannot.
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return answer{write: h.ServeHTTP}, nil
}

func (m *metrics) observe(path string, code int, took time.Duration) {
	m.requests.WithLabelValues(path, strconv.Itoa(code)).Inc()
	m.seconds.WithLabelValues(path).Observe(took.Seconds())
}

func (m *metrics) predicted(results []criteria.Prediction) {
	for _, p := range results {
		if p.Truncated {
			m.truncated.Inc()
		}
		if p.Label {
			m.positive.Inc()
		}
	}
}
