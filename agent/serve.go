package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/kubeconfig"
	"github.com/kairos-io/kairos/agent/peer"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// maxControl bounds the body of a request on the agent's own socket, in bytes.
const maxControl = 64 << 10

// hintSoon marks a refusal that ends by itself.
const hintSoon = "it will be ready soon"

// servePeers answers other agents on the overlay address, wherever that is.
func (a *agent) servePeers(ctx context.Context) error {
	for ctx.Err() == nil {
		changed := a.world.Changed()
		addr := a.world.get().address()
		if !addr.IsValid() {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		if err := a.servePeersAt(ctx, addr); err != nil {
			a.log.Warn("other agents cannot reach this one", "addr", addr, "err", err)
			pause(ctx, retryPause)
		}
	}
	return nil
}

// servePeersAt serves until the overlay address is another one. Before it is
// pinned it may change when two members claim the same.
func (a *agent) servePeersAt(ctx context.Context, addr netip.Addr) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			changed := a.world.Changed()
			if a.world.get().address() != addr {
				cancel()
				return
			}
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
	}()
	return a.peers.Serve(ctx, addr, a.peerEndpoints())
}

// handleJoin gives a member of this cluster what it joins with, while the server runs.
func (a *agent) handleJoin(w http.ResponseWriter, r *http.Request) {
	var req joinRequest
	if err := readJSON(r, &req); err != nil {
		api.WriteError(w, err)
		return
	}
	uid, err := a.serving(r.Context())
	if err != nil {
		api.WriteError(w, err)
		return
	}
	if req.UID != uid {
		api.WriteError(w, &api.Error{Message: "this server runs another cluster", Status: http.StatusConflict})
		return
	}
	join, err := a.opt.Files.JoinInfo(uid)
	if errors.Is(err, fs.ErrNotExist) {
		err = &api.Error{Message: "k3s is still starting", Hint: hintSoon, Status: http.StatusServiceUnavailable}
	}
	if err != nil {
		api.WriteError(w, err)
		return
	}
	answer := joinAnswer{CA: join.CA, Token: join.Token, Server: a.world.get().address()}
	if c, _ := peer.CallerOf(r); slices.Contains(a.store.State().Servers, c.ID) {
		if answer.Founder, answer.Issuer, err = a.issuance(); err != nil {
			api.WriteError(w, err)
			return
		}
	}
	api.WriteJSON(w, http.StatusOK, answer)
}

// serving returns the UID of the cluster whose server runs here.
func (a *agent) serving(ctx context.Context) (string, error) {
	st := a.store.State()
	if st.Role != store.Server || !st.Phase.AtLeast(store.Starting) {
		return "", &api.Error{Message: "no server runs on this node", Status: http.StatusConflict}
	}
	c, err := a.status(ctx)
	if err != nil {
		return "", err
	}
	if !c.Running || c.Role != k3s.Server || c.UID != st.ClusterUID {
		return "", &api.Error{Message: "the server does not run at the moment", Hint: hintSoon, Status: http.StatusServiceUnavailable}
	}
	return c.UID, nil
}

// handleBlob gives a piece of an image.
func (a *agent) handleBlob(w http.ResponseWriter, r *http.Request) {
	c, _ := peer.CallerOf(r)
	a.seeder.ServeBlob(w, r, c.ID)
}

// handleGrant signs a client certificate for a member.
func (a *agent) handleGrant(w http.ResponseWriter, r *http.Request) {
	c, _ := peer.CallerOf(r)
	var req kubeconfig.GrantRequest
	if err := readJSON(r, &req); err != nil {
		api.WriteError(w, err)
		return
	}
	g, err := a.grant(r.Context(), kubeconfig.Asker{ID: c.ID, Name: c.Node.Name}, req)
	if err != nil {
		api.WriteError(w, err)
		return
	}
	a.log.Info("issued a kubeconfig", "peer", c.ID, "cluster", req.UID)
	api.WriteJSON(w, http.StatusOK, g)
}

func (a *agent) grant(ctx context.Context, who kubeconfig.Asker, req kubeconfig.GrantRequest) (kubeconfig.Grant, error) {
	uid, err := a.serving(ctx)
	if err != nil {
		return kubeconfig.Grant{}, err
	}
	cert, key := a.opt.Files.ClientCA()
	return kubeconfig.Issuer{
		UID: uid, CACert: cert, CAKey: key, ServerCA: a.opt.Files.ServerCA(),
		Endpoint: "https://" + netip.AddrPortFrom(a.world.get().address(), k3s.APIPort).String(),
	}.Grant(who, req)
}

// localGrant serves root on the server itself, who needs nobody's leave.
func (a *agent) localGrant(ctx context.Context, req kubeconfig.GrantRequest) (kubeconfig.Grant, error) {
	return a.grant(ctx, kubeconfig.Asker{ID: a.world.get().status.ID, Name: a.nodeName()}, req)
}

// serveSocket answers the local CLI: root and this process's user only.
func (a *agent) serveSocket(ctx context.Context) error {
	l, err := api.ListenUnix(a.opt.Socket, -1)
	if err != nil {
		return fmt.Errorf("open the agent's socket: %w", err)
	}
	server := &http.Server{
		Handler:           http.MaxBytesHandler(a.socketMux(), maxControl),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		MaxHeaderBytes:    8 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(ownUsers{l}); ctx.Err() == nil {
		return fmt.Errorf("serve the agent's socket: %w", err)
	}
	return nil
}

// handleStatus tells what the agent does, and why it waits.
func (a *agent) handleStatus(w http.ResponseWriter, _ *http.Request) {
	api.WriteJSON(w, http.StatusOK, a.report.last.Load())
}

// ownUsers lets root and this process's user connect, whatever the socket's mode says.
type ownUsers struct{ net.Listener }

// Accept implements net.Listener.
func (l ownUsers) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := api.PeerUID(c); err == nil && (uid == 0 || uid == os.Getuid()) {
			return c, nil
		}
		_ = c.Close()
	}
}

func readBody(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, &api.Error{Message: "the request is too large", Status: http.StatusRequestEntityTooLarge}
	}
	if err != nil {
		return nil, &api.Error{Message: "read the request: " + err.Error(), Status: http.StatusBadRequest}
	}
	return b, nil
}

func readJSON(r *http.Request, into any) error {
	b, err := readBody(r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return &api.Error{Message: "decode the request: " + err.Error(), Status: http.StatusBadRequest}
	}
	return nil
}
