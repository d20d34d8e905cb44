// Package coexist holds tests of what a host program does with ONNX Runtime on
// its own, through onnxruntime_go, beside this library's classifiers and
// trainers. The environment of ONNX Runtime is one for the whole process.
package coexist
