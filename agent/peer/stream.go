package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// Get opens the resource at path of node from's agent, from byte offset on. The
// body has no limit of its own: the caller reads as much as it wants, until ctx
// ends, and closes it. An answer that is not 2xx becomes an *api.Error with its
// status; one that does not begin at offset is an error too.
func (p *Peer) Get(ctx context.Context, from identity.ID, path string, offset int64) (io.ReadCloser, error) {
	target := "https://" + from.String() + ":" + fmt.Sprint(p.port) + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("build a request: %w", err)
	}
	req.Header.Set("Accept-Encoding", "identity") // content is compressed already
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the agent of %s: %w", from.Short(), withoutURL(err))
	}
	if err := checkAnswer(resp, offset); err != nil {
		_ = resp.Body.Close() // what it said is in err
		return nil, fmt.Errorf("ask the agent of %s: %w", from.Short(), err)
	}
	return resp.Body, nil
}

func checkAnswer(resp *http.Response, offset int64) error {
	want, text := http.StatusOK, ""
	if offset > 0 {
		want, text = http.StatusPartialContent, "bytes "+strconv.FormatInt(offset, 10)+"-"
	}
	switch {
	case resp.StatusCode == want && strings.HasPrefix(resp.Header.Get("Content-Range"), text):
		return nil
	case resp.StatusCode >= 200 && resp.StatusCode <= 299:
		return fmt.Errorf("the answer does not begin at byte %d", offset)
	}
	e := &api.Error{}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil || json.Unmarshal(body, e) != nil || e.Message == "" {
		e.Message = "the answer was " + strings.ToLower(resp.Status)
	}
	e.Status = resp.StatusCode
	return e
}
