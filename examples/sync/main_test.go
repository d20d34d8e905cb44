package main

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/mlflow/mlflowtest"
)

// TestSync takes a real server away in the middle of a run, ends the run, and
// delivers the rest when the server is back.
func TestSync(t *testing.T) {
	mlflowtest.Python(t)
	server := mlflowtest.StartServer(t, mlflowtest.ServerOptions{Dir: t.TempDir()})
	server.Wait(t)
	tracker, err := criteria.NewMLflowTracker(criteria.WithTrackingURI(server.URL), criteria.WithExperiment("sync"), criteria.WithSystemMetrics(0))
	if err != nil {
		t.Fatal(err)
	}
	outputs := t.TempDir()
	run1, err := tracker.Start(t.Context(), criteria.RunInfo{Name: "interrupted", Dir: filepath.Join(outputs, "day", "time")})
	if err != nil {
		t.Fatal(err)
	}
	var want [][2]float64 // step, value
	for epoch := 1; epoch <= 6; epoch++ {
		if epoch == 4 {
			server.Kill(t)
		}
		loss := 1 / float64(epoch)
		if err := run1.LogMetrics(t.Context(), epoch, map[string]float64{"train_loss": loss}); err != nil {
			t.Fatal(err)
		}
		want = append(want, [2]float64{float64(epoch), loss})
	}
	if err := run1.LogArtifact(t.Context(), "notes.txt", strings.NewReader("kept")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := run1.End(ctx, criteria.RunFinished); err != nil {
		t.Fatalf("End: %v, want a warning only", err)
	}

	t.Setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
	var out strings.Builder
	if err := run(t.Context(), []string{outputs}, &out); err == nil || !strings.Contains(out.String(), "runs delivered: 0") {
		t.Errorf("with the server away: %v\n%s", err, &out)
	}

	server.Start(t)
	server.Wait(t)
	out.Reset()
	if err := run(t.Context(), []string{outputs, "--tracking_uri", server.URL}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), run1.ID()) || !strings.Contains(out.String(), "runs delivered: 1") {
		t.Errorf("printed %s", &out)
	}
	var history struct {
		Metrics []struct{ Step, Value float64 }
	}
	get(t, server.URL+"/api/2.0/mlflow/metrics/get-history?metric_key=train_loss&run_id="+run1.ID(), &history)
	var got [][2]float64
	for _, m := range history.Metrics {
		got = append(got, [2]float64{m.Step, m.Value})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("history (-want +got)\n%s", diff)
	}
	var answer struct {
		Run struct{ Info struct{ Status string } }
	}
	get(t, server.URL+"/api/2.0/mlflow/runs/get?run_id="+run1.ID(), &answer)
	var artifacts struct{ Files []struct{ Path string } }
	get(t, server.URL+"/api/2.0/mlflow/artifacts/list?run_id="+run1.ID(), &artifacts)
	if answer.Run.Info.Status != "FINISHED" || len(artifacts.Files) != 1 || artifacts.Files[0].Path != "notes.txt" {
		t.Errorf("%+v, %+v", answer, artifacts)
	}
	out.Reset()
	if err := run(t.Context(), []string{outputs}, &out); err != nil || out.String() != "runs delivered: 0\n" {
		t.Errorf("the second time: %v\n%s", err, &out)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"a", "b"}, {"--nope"}, {filepath.Join(t.TempDir(), "absent")}} {
		if err := run(t.Context(), args, t.Output()); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

func get(t *testing.T, url string, into any) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
}
