// Package objects is an object store for tests that speaks S3: upstream's, with a file behind it, so that it remembers across
// restarts. It takes any credentials.
package objects

import (
	"net/http"
	"os"
	"path/filepath"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3bolt"
)

// New serves the buckets that the directory holds, which is made when it is not there.
func New(directory string) (http.Handler, error) {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, err
	}
	backend, err := s3bolt.NewFile(filepath.Join(directory, "objects.db"))
	if err != nil {
		return nil, err
	}
	return gofakes3.New(backend).Server(), nil
}
