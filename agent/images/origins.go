package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/identity"
)

// originsFile is where it is written down, beside the agent's state.
const originsFile = "seeded.json"

// origins says whose OS brought the copies of images for pods, by name.
type origins map[string]origin

type origin struct {
	Digest string        `json:"digest"`
	By     []identity.ID `json:"by"`
}

// of returns nothing for what came under the name before.
func (o origins) of(img k3s.PodImage) []identity.ID {
	if at := o[img.Name]; at.Digest == img.Digest {
		return at.By
	}
	return nil
}

// readOrigins is usable with an error too: what is not known stays where it is until
// somebody's OS brings it again.
func readOrigins(file string) (origins, error) {
	out := origins{}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		return origins{}, fmt.Errorf("read %s: %w", file, err)
	}
	return out, nil
}

// keepOrigins writes down what has changed.
func (s *Seeder) keepOrigins(next origins) error {
	if reflect.DeepEqual(next, s.origins) {
		return nil
	}
	raw, err := json.Marshal(next)
	if err == nil {
		err = store.WriteFile(store.OS{}, s.file, append(raw, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write down whose OS brought the images: %w", err)
	}
	s.origins = next
	return nil
}
