// Package kernels holds the library's own GPU kernels in binary form: machine
// code for the architectures that are named in [All], and PTX, which a driver
// compiles, for those that come after them.
//
// Their sources are kernels.py and attention.py, in Triton; `make kernels` compiles
// them, byte for byte the same on every machine, and needs no GPU. What they compute is
// documented there, and proven on the CPU by this package's tests.
package kernels

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

//go:embed bin
var files embed.FS

// Manifest says what was built from which sources.
type Manifest struct {
	Triton  string            `json:"triton"`  // its version
	Sources map[string]string `json:"sources"` // SHA-256 by file name
	Kernels []Kernel          `json:"kernels"`
}

// Kernel is one kernel for all architectures.
type Kernel struct {
	Name  string `json:"name"`
	Entry string `json:"entry"` // of the function in every image
	// Arguments in their order, each as "name type" in Triton's words: "*fp32" is
	// an address, a multiple of 16; "i32%16" a number that is a multiple of 16.
	// Two more addresses follow, which are 0.
	Arguments []string `json:"arguments"`
	Block     int      `json:"block"` // elements, or rows of the scores, that a program of the grid works on
	Images    []Image  `json:"images"`
}

// Image is a kernel for one architecture.
type Image struct {
	Target string `json:"target"` // "sm_80": machine code; "compute_80": PTX
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
	Warps  int    `json:"warps"`  // of 32 threads, that a program consists of
	Shared int    `json:"shared"` // bytes of dynamic shared memory
}

// All returns what there is.
func All() (Manifest, error) {
	raw, err := files.ReadFile("bin/manifest.json")
	if err != nil {
		return Manifest{}, fmt.Errorf("kernels: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return Manifest{}, fmt.Errorf("kernels: manifest.json: %w", err)
	}
	return m, nil
}

// Targets returns the targets whose images a GPU of this compute capability
// runs, the best first: machine code for it, machine code for an older GPU of
// its family, PTX. There is none below 8.0.
func (m Manifest) Targets(major, minor int) []string {
	capability := 10*major + minor
	suits := func(target string) bool {
		kind, number, _ := strings.Cut(target, "_")
		number, exact := strings.CutSuffix(number, "a") // uses what only this architecture has
		have, err := strconv.Atoi(number)
		switch {
		case err != nil || have > capability:
			return false
		case kind == "sm":
			return have == capability || !exact && have/10 == major
		}
		return true
	}
	var targets []string
	for _, k := range m.Kernels {
		for _, image := range k.Images {
			if suits(image.Target) && !slices.Contains(targets, image.Target) {
				targets = append(targets, image.Target)
			}
		}
	}
	rank := func(target string) string { // descending: sm_90a, sm_80, compute_80
		kind, number, _ := strings.Cut(target, "_")
		return kind + fmt.Sprintf("%04s", strings.TrimSuffix(number, "a"))
	}
	slices.SortFunc(targets, func(a, b string) int { return strings.Compare(rank(b), rank(a)) })
	return targets
}

// For returns a kernel's image for a target. There may be none if another of a
// GPU's [Manifest.Targets] has one.
func (k Kernel) For(target string) (Image, bool) {
	i := slices.IndexFunc(k.Images, func(image Image) bool { return image.Target == target })
	if i < 0 {
		return Image{}, false
	}
	return k.Images[i], true
}

// Code returns the image itself, once its hash was found to be right. PTX ends
// with a 0 byte, as the driver wants it.
func (i Image) Code() ([]byte, error) {
	code, err := files.ReadFile(path.Join("bin", i.File))
	if err != nil {
		return nil, fmt.Errorf("kernels: %w", err)
	}
	if sum := sha256.Sum256(code); hex.EncodeToString(sum[:]) != i.SHA256 {
		return nil, fmt.Errorf("kernels: %s has the hash %x, not that of the manifest, %s", i.File, sum, i.SHA256)
	}
	if strings.HasSuffix(i.File, ".ptx") {
		code = append(code, 0)
	}
	return code, nil
}
