package mlflow

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSystemSampler(t *testing.T) {
	s := NewSystemSampler(t.Context(), t.TempDir())
	got := s.Sample(t.Context())
	for _, key := range []string{"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes", "system/system_memory_usage_percentage", "system/disk_usage_percentage", "system/disk_available_megabytes"} {
		if v, ok := got[key]; !ok || v < 0 || math.IsNaN(v) {
			t.Errorf("%s = %v, %v", key, v, ok)
		}
	}
	for key := range got {
		if err := ValidKey(key); err != nil {
			t.Error(err)
		}
	}
}

func TestParseGPUs(t *testing.T) {
	got := map[string]float64{}
	parseGPUs(strings.NewReader("0, 87, 1000, 4000, 350.5, 701\n1, [N/A], 0, 4000, [N/A], [N/A]\nunknown line\n"), got)
	want := map[string]float64{
		"system/gpu_0_utilization_percentage": 87, "system/gpu_0_memory_usage_megabytes": 1048.576, "system/gpu_0_memory_usage_percentage": 25,
		"system/gpu_0_power_usage_watts": 350.5, "system/gpu_0_power_usage_percentage": 50,
		"system/gpu_1_memory_usage_megabytes": 0, "system/gpu_1_memory_usage_percentage": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
