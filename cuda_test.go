package criteria_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakecuda"
	"github.com/criteria-go/criteria/internal/fakes"
)

// onGPU is a short training of the tiny model on a GPU.
func onGPU(t *testing.T, config criteria.Config, opts ...criteria.TrainerOption) (*criteria.Result, error) {
	t.Helper()
	trainer, err := criteria.NewTrainer(append([]criteria.TrainerOption{
		criteria.WithConfig(config), criteria.WithCheckpoint("testdata/sample/tiny-deberta"), criteria.WithDataset(fakes.Dataset(12, 6, 6, 1)),
		criteria.Configure(func(c *criteria.Config) {
			c.Model.Tokenizer.MaxLength, c.Train.Epochs = 64, 1
		}), criteria.WithOutputDir(t.TempDir()), criteria.WithDevice("cuda"),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return trainer.Run(t.Context())
}

// TestRunOnGPU takes a whole run, from the data to the classifier, through ONNX
// Runtime's CUDA provider under a stand-in for the GPU, which computes nothing.
func TestRunOnGPU(t *testing.T) {
	if !fakecuda.Run(t) {
		return
	}
	config := criteria.DefaultConfig()
	config.Train.Optimizations.UseCompile, config.Train.Optimizations.CompileMode = true, "reduce-overhead"
	config.Train.Optimizations.GradientCheckpointing = true
	config.Train.GradientAccumulationSteps, config.Train.BatchSize = 2, 8
	result, err := onGPU(t, config)
	if err != nil {
		t.Fatal(err)
	}
	classifier, err := result.Classifier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer classifier.Close()
	if _, err := classifier.Predict(t.Context(), []criteria.Pair{{Post: "I sleep well.", Criterion: "Insomnia"}}); err != nil {
		t.Error(err)
	}
}

// TestFlashAttention: the key lets a run launch the fused attention, for training and
// for evaluation; without it nothing does. Where it cannot be the run ends at once, and
// says what to take instead.
func TestFlashAttention(t *testing.T) {
	if !fakecuda.Run(t) {
		return
	}
	config := criteria.DefaultConfig()
	launches := func() map[string]int {
		count := map[string]int{}
		for _, l := range fakecuda.Launches(t, func() {
			if _, err := onGPU(t, config); err != nil {
				t.Fatal(err)
			}
		}) {
			if strings.HasPrefix(l.Kernel, "flash_attention") {
				count[l.Kernel]++
			}
		}
		return count
	}
	if got := launches(); len(got) != 0 {
		t.Errorf("sdpa launches %v", got)
	}
	config.Train.Optimizations.AttentionImplementation = "flash_attention_2"
	got := launches()
	backward := got["flash_attention_keys"]
	if backward == 0 || got["flash_attention_queries"] != backward || got["flash_attention"] <= backward {
		t.Errorf("flash_attention_2 launches %v, want as many backward kernels of both kinds, and more forward ones", got)
	}
	t.Setenv("FAKECUDA_CAPABILITY", "75")
	if _, err := onGPU(t, config); err == nil || !strings.Contains(err.Error(), "take sdpa") {
		t.Errorf("error %v on a GPU without kernels, want one that names sdpa", err)
	}
}

// TestGPUOutOfMemory: the error names the batch, the memory and what helps.
func TestGPUOutOfMemory(t *testing.T) {
	if !fakecuda.Run(t, "FAKECUDA_MEMORY=20000000") {
		return
	}
	config := criteria.DefaultConfig()
	config.Train.BatchSize = 64
	_, err := onGPU(t, config)
	var memory *criteria.OutOfMemoryError
	if !errors.As(err, &memory) {
		t.Fatalf("error %v, want an OutOfMemoryError", err)
	}
	if memory.Total != 20000000 || memory.Rows > 64 || memory.Length > 64 {
		t.Errorf("got %+v", memory)
	}
	for _, want := range []string{"train.batch_size", "gradient_checkpointing", "adamw_bnb_8bit"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the message lacks %q: %v", want, err)
		}
	}
}

// TestMissingGPU: a run that was to use a GPU does not use the CPU instead.
func TestMissingGPU(t *testing.T) {
	t.Setenv("CRITERIA_CUDA_ORT_LIB", os.Getenv("CRITERIA_ORT_LIB")) // has no CUDA provider
	_, err := onGPU(t, criteria.DefaultConfig())
	var missing *criteria.RuntimeError
	if !errors.As(err, &missing) {
		t.Fatalf("error %v, want a RuntimeError", err)
	}
	if text := err.Error(); !strings.Contains(text, "CUDA") || !strings.Contains(text, "make deps-cuda") {
		t.Errorf("the error does not say what to do: %v", err)
	}
}

func TestDeviceConfig(t *testing.T) {
	for _, test := range []struct {
		device string
		edit   func(*criteria.TrainConfig)
		want   string // in the error; "": none
	}{
		{device: "cpu"},
		{device: "cuda"},
		{device: "cuda:7"},
		{device: "", want: "device"},
		{device: "gpu", want: "cuda:N"},
		{device: "cuda:", want: "cuda:N"},
		{device: "cuda:-1", want: "cuda:N"},
		{device: "cuda:01", want: "cuda:N"},
		{device: "cpu", edit: func(c *criteria.TrainConfig) { c.Optimizations.AttentionImplementation = "flash_attention_2" }},
		{device: "cuda", edit: func(c *criteria.TrainConfig) { c.Optimizations.AttentionImplementation = "flash_attention_2" }},
		{device: "cuda", edit: func(c *criteria.TrainConfig) { c.OptimizerType = "adamw_bnb_8bit" }},
	} {
		c := criteria.DefaultConfig()
		c.Device = test.device
		if test.edit != nil {
			test.edit(&c.Train)
		}
		err := c.Validate()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("device %q: error %v, want one about %q", test.device, err, test.want)
		}
	}
	if _, err := criteria.NewTrainer(criteria.WithDevice("cuda:-1")); !errors.Is(err, criteria.ErrInvalidOption) {
		t.Errorf("WithDevice(cuda:-1): %v", err)
	}
}
