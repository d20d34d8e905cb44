package serve

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

const maxHeaderBytes = 16 << 10

// Serve answers requests until ctx ends. Then /readyz says no, and every answer
// asks its client to close the connection; after the time drain no more
// connections are accepted, the requests that are being answered are waited for,
// for no longer than a request may take, and Serve returns. A server that has no
// model by then has no clients either, and does not wait for load balancers.
//
// Requests that net/http refuses by itself get errors of the same form as all
// others.
func (s *Server) Serve(ctx context.Context, l net.Listener, drain time.Duration) error {
	server := &http.Server{
		Handler:           s,
		ReadTimeout:       s.limits.Read, // of headers and body together
		ReadHeaderTimeout: s.limits.Read,
		WriteTimeout:      s.limits.Read + s.limits.Timeout + writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext:       withConn,

		DisableGeneralOptionsHandler: true, // it answers without JSON
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener{l, s}) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	s.log.Info("draining", "cause", context.Cause(ctx).Error())
	s.Drain()
	if _, err := s.model(""); err == nil {
		time.Sleep(drain)
	}
	server.SetKeepAlivesEnabled(false)
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
