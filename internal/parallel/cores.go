package parallel

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// Cores returns how many threads of this process can compute at the same time:
// GOMAXPROCS, which Go derives from the processors that the process may use and
// from the quota of its cgroup, but never below 2 for a quota. A quota of one
// processor is 1 here, unless the environment sets GOMAXPROCS.
func Cores() int {
	return int(max(1, min(float64(runtime.GOMAXPROCS(0)), math.Ceil(ownQuota()))))
}

// ownQuota is that of this process at its first call: a pool of threads has its
// size from the start, too.
var ownQuota = sync.OnceValue(func() float64 {
	if os.Getenv("GOMAXPROCS") != "" {
		return math.Inf(1)
	}
	return quota(os.DirFS("/"))
})

// quota returns how many processors' time the cgroup of this process and those
// around it may use, as the kernel documents cpu.max and cpu.cfs_quota_us;
// infinity if there is no limit. fsys is the root of the file system.
func quota(fsys fs.FS) float64 {
	least := math.Inf(1)
	text, err := fs.ReadFile(fsys, "proc/self/cgroup")
	if err != nil {
		return least // not Linux
	}
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, place, _ := strings.Cut(rest, ":")
		switch {
		case controllers == "": // version 2
			least = min(least, quotaAlong(fsys, "sys/fs/cgroup", place, maxOf))
		case hasCPU(controllers):
			least = min(least, quotaAlong(fsys, "sys/fs/cgroup/"+controllers, place, cfsOf),
				quotaAlong(fsys, "sys/fs/cgroup/cpu", place, cfsOf))
		}
	}
	return least
}

func hasCPU(controllers string) bool {
	for name := range strings.SplitSeq(controllers, ",") {
		if name == "cpu" {
			return true
		}
	}
	return false
}

// quotaAlong returns the least quota from a cgroup up to where its hierarchy is
// mounted. In a container the mount may begin at the cgroup itself.
func quotaAlong(fsys fs.FS, mount, place string, of func(fs.FS, string) float64) float64 {
	least := math.Inf(1)
	for place = path.Clean("/" + place); ; place = path.Dir(place) {
		least = min(least, of(fsys, path.Join(mount, place)))
		if place == "/" {
			return least
		}
	}
}

// maxOf reads cpu.max: "max 100000" or "50000 100000", microseconds in a period.
func maxOf(fsys fs.FS, dir string) float64 {
	text, _ := fs.ReadFile(fsys, dir+"/cpu.max")
	time, period, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	return share(time, period)
}

// cfsOf reads what version 1 has in two files; a quota of -1 is none.
func cfsOf(fsys fs.FS, dir string) float64 {
	time, _ := fs.ReadFile(fsys, dir+"/cpu.cfs_quota_us")
	period, _ := fs.ReadFile(fsys, dir+"/cpu.cfs_period_us")
	return share(strings.TrimSpace(string(time)), strings.TrimSpace(string(period)))
}

func share(time, period string) float64 {
	a, err := strconv.ParseFloat(time, 64)
	b, err2 := strconv.ParseFloat(period, 64)
	if err != nil || err2 != nil || !(a > 0 && b > 0) {
		return math.Inf(1)
	}
	return a / b
}
