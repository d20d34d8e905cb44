// Command predictor is the smallest program that predicts: what it links, everyone does.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/criteria-go/criteria"
)

func main() {
	ctx := context.Background()
	c, err := criteria.Load(ctx, "best_model")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	a, err := c.Predict(ctx, []criteria.Pair{{Post: "I lie awake all night.", Criterion: "Insomnia."}})
	fmt.Println(a, err)
}
