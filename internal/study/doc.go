// Package study searches for good hyperparameters.
//
// It has the search itself ([Study.Run]: any number of workers, in any number
// of processes, share one study), the algorithms that Optuna 5 uses by default
// ([TPE], [MedianPruner]) and two ways to say which hyperparameters mattered
// ([FANOVA], [PEDANOVA]).
//
// # Seams
//
// Samplers and pruners are goptuna's interfaces: goptuna.Sampler,
// goptuna.RelativeSampler and goptuna.Pruner. The package's own satisfy them
// and also work in a plain goptuna.Study; any of goptuna's work here. The
// record of a trial is goptuna.FrozenTrial, with three conventions:
//
//   - Distributions holds the types of this package, which are Optuna's:
//     goptuna has no integers on a logarithmic scale, and no choices but strings.
//   - Value is NaN for a trial without a value.
//   - UserAttrs and SystemAttrs hold JSON.
//
// What differs from goptuna's own loop is written where it matters: its
// integers never reach their upper bound, seeds do not repeat a search, a
// database that is away loops for ever.
//
// # Repeating a search
//
// Every random draw is a function of the sampler's seed, the trial's number and
// the parameter's name, never of what was drawn before. One worker therefore
// repeats a study exactly, even if it was stopped and resumed half-way, and
// workers never draw the same numbers, for no two have a trial of one number.
// What several workers find still depends on who finished first.
package study
