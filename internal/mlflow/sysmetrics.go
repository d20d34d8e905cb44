package mlflow

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
)

// SystemSampler measures the machine, under the names that MLflow's pages show
// as system metrics. It is not safe for concurrent use.
type SystemSampler struct {
	dir       string // the disk of this folder is measured
	nvidiaSMI string // "" without an NVIDIA driver
	received  uint64 // of the network, at the start
	sent      uint64
}

// NewSystemSampler starts measuring: rates count from here.
func NewSystemSampler(ctx context.Context, dir string) *SystemSampler {
	s := &SystemSampler{dir: dir}
	s.nvidiaSMI, _ = exec.LookPath("nvidia-smi")
	_, _ = cpu.PercentWithContext(ctx, 0, false) // the next call is relative to this one
	s.received, s.sent, _ = traffic(ctx)
	return s
}

const mega = 1e6 // MLflow counts in powers of ten

// Sample returns what could be measured; what the machine does not tell is
// left out.
func (s *SystemSampler) Sample(ctx context.Context) map[string]float64 {
	out := make(map[string]float64)
	if p, err := cpu.PercentWithContext(ctx, 0, false); err == nil && len(p) == 1 {
		out["system/cpu_utilization_percentage"] = p[0]
	}
	if m, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		out["system/system_memory_usage_megabytes"] = float64(m.Used) / mega
		out["system/system_memory_usage_percentage"] = m.UsedPercent
	}
	if d, err := disk.UsageWithContext(ctx, s.dir); err == nil {
		out["system/disk_usage_percentage"] = d.UsedPercent
		out["system/disk_usage_megabytes"] = float64(d.Used) / mega
		out["system/disk_available_megabytes"] = float64(d.Free) / mega
	}
	if received, sent, err := traffic(ctx); err == nil && received >= s.received && sent >= s.sent {
		out["system/network_receive_megabytes"] = float64(received-s.received) / mega
		out["system/network_transmit_megabytes"] = float64(sent-s.sent) / mega
	}
	s.sampleGPUs(ctx, out)
	return out
}

func traffic(ctx context.Context) (received, sent uint64, err error) {
	counters, err := net.IOCountersWithContext(ctx, false)
	if err != nil || len(counters) == 0 {
		return 0, 0, fmt.Errorf("mlflow: network counters: %w", err)
	}
	return counters[0].BytesRecv, counters[0].BytesSent, nil
}

// gpuQuery asks nvidia-smi for one line per GPU.
var gpuQuery = []string{"--query-gpu=index,utilization.gpu,memory.used,memory.total,power.draw,power.limit", "--format=csv,noheader,nounits"}

func (s *SystemSampler) sampleGPUs(ctx context.Context, out map[string]float64) {
	if s.nvidiaSMI == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	text, err := exec.CommandContext(ctx, s.nvidiaSMI, gpuQuery...).Output()
	if err == nil {
		parseGPUs(strings.NewReader(string(text)), out)
	}
}

func parseGPUs(r io.Reader, out map[string]float64) {
	lines := csv.NewReader(r)
	lines.TrimLeadingSpace = true
	lines.FieldsPerRecord = -1
	for {
		f, err := lines.Read()
		if err != nil {
			return
		}
		if len(f) != 6 {
			continue
		}
		var v [6]float64
		var ok [6]bool
		for i := range f { // a GPU that does not know a value says [N/A]
			v[i], err = strconv.ParseFloat(strings.TrimSpace(f[i]), 64)
			ok[i] = err == nil
		}
		if _, err := strconv.ParseUint(f[0], 10, 16); err != nil {
			continue
		}
		set := func(name string, value float64, known bool) {
			if known {
				out["system/gpu_"+f[0]+"_"+name] = value
			}
		}
		const mebi = 1 << 20
		set("utilization_percentage", v[1], ok[1])
		set("memory_usage_megabytes", v[2]*mebi/mega, ok[2])
		set("memory_usage_percentage", 100*v[2]/v[3], ok[2] && ok[3] && v[3] > 0)
		set("power_usage_watts", v[4], ok[4])
		set("power_usage_percentage", 100*v[4]/v[5], ok[4] && ok[5] && v[5] > 0)
	}
}
