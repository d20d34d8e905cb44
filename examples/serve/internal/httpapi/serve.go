package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Times for what happens after a request. A client that is slower holds a
// connection, but no part of the model.
const (
	writeTimeout = 15 * time.Second // for an answer to be taken, beyond the time to compute it
	idleTimeout  = 2 * time.Minute  // of a connection that is kept
)

// Serve answers requests until ctx ends. Then /readyz says no; after the time
// drain it accepts no more connections, waits for the requests that are being
// answered, for no longer than a request may take, and returns.
func Serve(ctx context.Context, l net.Listener, s *Server, drain time.Duration) error {
	server := &http.Server{
		Handler:        s,
		ReadTimeout:    s.limits.Read, // of headers and body together
		WriteTimeout:   s.limits.Read + s.limits.Timeout + writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	s.log.Info("draining", "cause", context.Cause(ctx).Error())
	s.Drain()
	time.Sleep(drain)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.Read+s.limits.Timeout)
	defer cancel()
	err := server.Shutdown(last)
	if err != nil {
		err = errors.Join(err, server.Close()) // those that still wait are cut off
	}
	if ended := <-ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	s.log.Info("ended")
	return err
}
