package client

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
)

// keyPath returns the path of a key. A key of one column is escaped as a whole; the escapes of a composite key are those of the
// path. The sidecar knows which one it is, and is only asked if that matters.
func keyPath(ctx context.Context, sidecar *cli.Listener, dataset, key string) (string, error) {
	one, composite := routekey.Path(dataset, key), routekey.Format(dataset, key)
	if one == composite {
		return "/v1/" + one, nil
	}
	body, err := sidecar.GetOK(ctx, "/v1/datasets")
	if err != nil {
		return "", err
	}
	var list struct {
		Datasets []struct {
			Name string   `json:"name"`
			Key  []string `json:"key"`
		} `json:"datasets"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return "", fmt.Errorf("read the list of datasets: %w", err)
	}
	for _, d := range list.Datasets {
		if d.Name == dataset && len(d.Key) > 1 {
			return "/v1/" + composite, nil
		}
	}
	return "/v1/" + one, nil
}
