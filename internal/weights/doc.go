// Package weights reads and writes the weights of a model.
//
// Three containers hold PyTorch weights in the wild, and all are read here
// through one type, [File]:
//
//   - safetensors: a JSON header followed by raw little-endian data,
//     https://huggingface.co/docs/safetensors;
//   - the zip archive torch.save writes since PyTorch 1.6: data.pkl, a pickle
//     that names the tensors, and one stored member per storage;
//   - the older ("legacy") form of torch.save: five pickles in a row, followed
//     by the storages.
//
// Opening a file reads only its directory; numbers are read when they are asked
// for, in bounded chunks, straight into the caller's slice. So a half-precision
// file never exists twice in memory. Files are read with ReadAt and not mapped:
// a mapped file that another process cuts short would kill the program with
// SIGBUS, where ReadAt returns an error.
//
// A pickle is a program. Here it can build lists, dictionaries, numbers, strings
// and references to tensors; every other Python object that it names is refused
// by a [FormatError], and nothing it names is ever executed.
package weights
