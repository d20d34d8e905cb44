package httpapi

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

func newMetrics(stats func() criteria.Stats) *metrics {
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
	counter := func(name, help string, value func(criteria.Stats) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return value(stats()) })
	}
	m.registry.MustRegister(
		m.requests, m.seconds, m.truncated, m.positive,
		counter("criteria_pairs_total", "Pairs that were computed.", func(s criteria.Stats) float64 { return float64(s.Pairs) }),
		counter("criteria_batches_total", "Batches in which they were computed.", func(s criteria.Stats) float64 { return float64(s.Batches) }),
		counter("criteria_refused_calls_total", "Calls refused because the queue was full.", func(s criteria.Stats) float64 { return float64(s.Refused) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "criteria_queue_pairs", Help: "Pairs that wait to be computed."},
			func() float64 { return float64(stats().Waiting) }),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
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
