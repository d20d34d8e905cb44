package main

// The databases that addresses on the command line may name.
import (
	_ "github.com/criteria-go/criteria/sqlite"
)
