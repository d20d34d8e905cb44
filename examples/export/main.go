// Command export writes a trained model for programs that are not written in
// Go: as model.onnx, or in the layout of Hugging Face transformers.
//
//	go run ./examples/export outputs/DATE/TIME/best_model exported
//	go run ./examples/export -int8 outputs/DATE/TIME/best_model exported
//	go run ./examples/export -transformers outputs/DATE/TIME/best_model exported
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/criteria-go/criteria"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "export:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, messages io.Writer) error {
	flags := flag.NewFlagSet("export", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.Usage = func() {
		fmt.Fprintln(messages, "usage: export [FLAGS] BEST_MODEL FOLDER")
		flags.PrintDefaults()
	}
	transformers := flags.Bool("transformers", false, "write the layout of Hugging Face transformers instead of model.onnx")
	int8 := flags.Bool("int8", false, "store the encoder's weights in eight bits")
	external := flags.Bool("external-data", false, "write the weights into a file of their own")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("want two arguments, the best_model folder of a training and a folder for the export")
	}
	modelDir, dir := flags.Arg(0), flags.Arg(1)

	if *transformers {
		if *int8 || *external {
			return errors.New("-int8 and -external-data are for model.onnx; leave them out or -transformers")
		}
		class, err := criteria.ExportTransformers(ctx, modelDir, dir)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s is for %s.from_pretrained\n", dir, class)
		return err
	}
	var options []criteria.ExportOption
	if *int8 {
		options = append(options, criteria.WithInt8())
	}
	if *external {
		options = append(options, criteria.WithExternalData())
	}
	if err := criteria.ExportONNX(ctx, modelDir, dir, options...); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s has model.onnx\n", dir)
	return err
}
