package criteria

import (
	"fmt"

	"github.com/criteria-go/criteria/internal/report"
)

// confusionPicture draws how the test split was judged.
func (r *run) confusionPicture() ([]byte, error) {
	counts := [][]int{r.testTally.Confusion[0][:], r.testTally.Confusion[1][:]}
	title := fmt.Sprintf("Test split: macro-F1 %.3f, accuracy %.3f", r.testTally.scores().MacroF1, r.testTally.scores().Accuracy)
	return report.ConfusionMatrix(title, counts, []string{"absent (0)", "present (1)"})
}

// curvesPicture draws how losses and scores went over the epochs.
func (r *run) curvesPicture() ([]byte, error) {
	epochs := make([]report.Epoch, len(r.state.History))
	for i, e := range r.state.History {
		epochs[i] = report.Epoch{
			Number: e.Epoch, TrainLoss: e.Train.Loss, ValLoss: e.Val.Loss, TrainF1: e.Train.MacroF1, ValF1: e.Val.MacroF1,
		}
	}
	return report.TrainingCurves("Training of "+r.cfg.Model.Checkpoint, epochs, r.state.BestEpoch)
}
