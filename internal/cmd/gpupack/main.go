// Command gpupack packs gpu-check for a machine that has a GPU, its driver and a
// Python with PyTorch for CUDA 13, but no network and no Go: a folder with one
// archive and a script that unpacks and runs it. It is made where there is no GPU.
//
// Usage: gpupack -o DIR [-arch 90]
//
// The archive holds gpucheck, the golden cases and ONNX Runtime, whose GPU code
// for other architectures, and of kernels that we do not use, is emptied: 280 of
// its 310 MB. NVIDIA's own libraries are PyTorch's.
package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gpupack:", err)
		os.Exit(1)
	}
}

const (
	archiveName = "parts.tar.gz"
	provider    = "libonnxruntime_providers_cuda.so"
)

// envRuntime names ONNX Runtime with its CUDA provider; `make gpu-pack` sets it.
const envRuntime = "CRITERIA_CUDA_ORT_LIB"

//go:embed gpu-check.sh
var script []byte

func run(ctx context.Context) error {
	dir := flag.String("o", "gpu-check", "folder to write")
	arch := flag.Uint("arch", 90, "architecture of the GPU: 80, 86, 89, 90 (H100, H200) or 120")
	flag.Parse()
	library := os.Getenv(envRuntime)
	if library == "" {
		return fmt.Errorf("%s is not set: run make gpu-pack", envRuntime)
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(*dir, "gpu-check"), script, 0o755); err != nil {
		return err
	}
	archive := filepath.Join(*dir, archiveName)
	if err := pack(ctx, archive, library, uint32(*arch)); err != nil {
		return fmt.Errorf("%s: %w", archive, err)
	}
	info, err := os.Stat(archive)
	if err == nil {
		fmt.Printf("%s: %.1f MB; copy the folder to the machine with the GPU, and run sh %s/gpu-check there\n", archive, float64(info.Size())/1e6, filepath.Base(*dir))
	}
	return err
}

// pack writes the archive.
func pack(ctx context.Context, path, library string, arch uint32) (err error) {
	tmp, err := os.MkdirTemp("", "gpupack")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	program, stub := filepath.Join(tmp, "gpucheck"), filepath.Join(tmp, "libcurand.so.10")
	if err := command(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./internal/cmd/gpucheck"); err != nil {
		return err
	}
	// The provider is linked to cuRAND, of which it calls nothing, and which not
	// every PyTorch brings along.
	source := filepath.Join(tmp, "empty.c")
	if err := os.WriteFile(source, nil, 0o644); err != nil {
		return err
	}
	if err := command(ctx, "cc", "-shared", "-Wl,-soname,libcurand.so.10", "-o", stub, source); err != nil {
		return err
	}
	code, err := os.ReadFile(filepath.Join(filepath.Dir(library), provider))
	if err != nil {
		return err
	}
	kept, all, err := strip(code, arch)
	if err != nil {
		return fmt.Errorf("%s beside %s: %w", provider, library, err)
	}
	fmt.Printf("GPU code: %.1f of %.1f MB kept\n", float64(kept)/1e6, float64(all)/1e6)

	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	w := &writer{tar.NewWriter(z)}
	if err := w.bytes("ort/"+provider, code); err != nil {
		return err
	}
	for name, from := range map[string]string{
		"gpucheck":                               program,
		"stub/libcurand.so.10":                   stub,
		"ort/libonnxruntime.so":                  library,
		"ort/libonnxruntime_providers_shared.so": filepath.Join(filepath.Dir(library), "libonnxruntime_providers_shared.so"),
	} {
		if err := w.file(name, from); err != nil {
			return err
		}
	}
	for _, pattern := range []string{"model/tiny-deberta/config.json", "model/tiny-deberta/model.safetensors", "model/forward/case??.safetensors"} {
		files, err := filepath.Glob(filepath.Join("testdata", "golden", pattern))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("no %s below testdata/golden: run it in the root of the repository", pattern)
		}
		for _, file := range files {
			if err := w.file(filepath.Join("golden", filepath.Dir(pattern), filepath.Base(file)), file); err != nil {
				return err
			}
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return z.Close()
}

func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

type writer struct{ *tar.Writer }

func (w *writer) file(name, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return w.bytes(name, content)
}

func (w *writer) bytes(name string, content []byte) error {
	header := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}
