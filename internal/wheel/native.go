package wheel

import "strings"

// The versions of the libraries that a program loads at run time.
const (
	ONNXRuntimeVersion = "1.32.0"
	OpenBLASVersion    = "0.3.34.481.3"
)

// ONNXRuntime returns the wheel that holds ONNX Runtime for a platform, GOOS/GOARCH.
//
// The wheels are those for CPython 3.12, which says nothing about a Python on this
// machine: it only picks one of several that hold the same library.
func ONNXRuntime(platform string) (Wheel, bool) {
	sums := map[string]string{
		"linux/amd64":  "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
		"linux/arm64":  "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
		"darwin/arm64": "d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
	}
	member := "onnxruntime/capi/libonnxruntime.so." + ONNXRuntimeVersion
	if strings.HasPrefix(platform, "darwin/") {
		member = "onnxruntime/capi/libonnxruntime." + ONNXRuntimeVersion + ".dylib"
	}
	return Wheel{"onnxruntime", ONNXRuntimeVersion, sums[platform],
		map[string]string{member: LibraryName(platform, "onnxruntime")}}, sums[platform] != ""
}

// OpenBLAS returns the wheel that holds OpenBLAS for a platform, GOOS/GOARCH.
func OpenBLAS(platform string) (Wheel, bool) {
	sums := map[string]string{
		"linux/amd64":  "0595f94cd58c1f8a0d90c975621f4587337a003916b1979e834ebdf2cb5d9504",
		"linux/arm64":  "e085dddbc5b9aa130f83def515d31c440e69f387a90c7e63b154a5575b4466bc",
		"darwin/arm64": "813bb8101da2f64555c4a5e71c3714539d92b0b4f1841ec12b80d50e56cde46c",
	}
	name := LibraryName(platform, "scipy_openblas")
	return Wheel{"scipy-openblas32", OpenBLASVersion, sums[platform],
		map[string]string{"scipy_openblas32/lib/" + name: name}}, sums[platform] != ""
}

// LibraryName is what a platform calls the shared library of a name.
func LibraryName(platform, name string) string {
	if strings.HasPrefix(platform, "darwin/") {
		return "lib" + name + ".dylib"
	}
	return "lib" + name + ".so"
}
