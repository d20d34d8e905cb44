// Package ort runs ONNX models on ONNX Runtime. It is the only package of the
// module that imports onnxruntime_go.
//
// It adds to that binding what training needs:
//
//   - [Acquire] finds the shared library, checks its version and counts the
//     users of the process-wide environment, so that several trainers and the
//     host program may live side by side.
//   - [Buffer] is memory outside the Go heap. Parameters, gradients and
//     optimizer state are views ([Tensor]) into a few large buffers.
//   - [Session] is one compiled model, [Binding] the tensors it reads and
//     writes. A binding keeps everything it was given alive until it is
//     closed.
//   - The operators of domain [Domain], written in C, stand beside ONNX's own.
//     They exist because the chains of standard operators that they replace
//     are bound by memory, not by arithmetic. [Runtime.HasOperator] says which
//     ones can be used.
//
// The package needs cgo and a Unix-like system (Linux, macOS).
package ort
