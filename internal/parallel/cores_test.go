package parallel

import (
	"math"
	"runtime"
	"testing"
	"testing/fstest"
)

func TestQuota(t *testing.T) {
	none := math.Inf(1)
	for name, tc := range map[string]struct {
		files map[string]string
		want  float64
	}{
		"not Linux":    {nil, none},
		"none":         {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, none},
		"one":          {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1},
		"of a parent":  {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 0.5},
		"of container": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5},
		"version 1": {map[string]string{"proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/docker/1\n",
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 1},
		"version 1, none": {map[string]string{"proc/self/cgroup": "3:cpu:/\n",
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, none},
		"nonsense": {map[string]string{"proc/self/cgroup": "0::/../../x\n:::\n\n", "sys/fs/cgroup/cpu.max": "a b c"}, none},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for file, text := range tc.files {
				fsys[file] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := quota(fsys); got != tc.want {
				t.Errorf("%v processors, want %v", got, tc.want)
			}
		})
	}
}

func TestCores(t *testing.T) {
	was := ownQuota
	defer func() { ownQuota = was }()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	for quota, want := range map[float64]int{0.5: 1, 1: 1, 1.5: 2, 8: 3, math.Inf(1): 3} {
		ownQuota = func() float64 { return quota }
		if got := Cores(); got != want {
			t.Errorf("%d cores under a quota of %v, want %d", got, quota, want)
		}
	}
}
